// kvfathom-fit-tables TABLES DATA: fits the laws of published kernel tables (docs/calibration.md).
#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <map>
#include <sstream>
#include <string>

#include "calibrate/fit/table.h"
#include "model/error.h"
#include "model/io/calibration_json.h"
#include "model/io/file.h"
#include "model/io/hardware_json.h"

namespace kvfathom {
namespace {

constexpr const char* kSource =
    "ai-dynamo/aiconfigurator (Apache-2.0), commit 095f58a5, fitted by kvfathom-fit-tables";

/// Four digits: what a fit does not know is no noise in the file.
double rounded(double value) {
  if (value == 0.0 || !std::isfinite(value)) {
    return value;
  }
  const double unit = std::pow(10.0, std::floor(std::log10(std::abs(value))) - 3.0);
  return std::stod(std::to_string(std::llround(value / unit)) + "e" +
                   std::to_string(std::llround(std::log10(unit))));
}
void round_in_place(double& value) {
  value = rounded(value);
}
void round_in_place(Interval& interval) {
  interval = {rounded(interval.low), rounded(interval.high)};
}
template <int B, int S, int F>
void round_in_place(Quantity<B, S, F>& value) {
  value = Quantity<B, S, F>(rounded(value.value()));
}
void round_in_place(FitErrors& errors) {
  for (double* const value : {&errors.median, &errors.mean, &errors.p90, &errors.max}) {
    round_in_place(*value);
  }
}
template <typename T>
void round_in_place(std::optional<T>& value) {
  if (value) {
    round_in_place(*value);
  }
}
void round_in_place(FittedClass& fitted) {
  Law& law = fitted.law;
  round_in_place(law.fixed);
  round_in_place(law.wave);
  round_in_place(law.bandwidth);
  round_in_place(law.flops);
  round_in_place(law.p);
  LawIntervals& ci90 = fitted.ci90;
  for (auto* const interval :
       {&ci90.fixed_s, &ci90.wave_s, &ci90.bandwidth_bytes_per_s, &ci90.flops_per_s, &ci90.p}) {
    round_in_place(*interval);
  }
  round_in_place(fitted.loo);
  round_in_place(fitted.holdout);
  for (double* const value :
       {&fitted.residuals.q05, &fitted.residuals.q50, &fitted.residuals.q95}) {
    round_in_place(*value);
  }
  round_in_place(fitted.range.bytes);
  round_in_place(fitted.range.flops);
}

FittedClass fitted_class(const ClassPoints& points) {
  FitResult fit = fit_law(points.points, points.settings);
  FittedClass fitted;
  fitted.id = points.id;
  fitted.provenance = Provenance::published;
  fitted.law = fit.law;
  fitted.ci90 = fit.ci90;
  fitted.loo = fit.loo;
  fitted.holdout = fit.holdout;
  fitted.residuals = fit.residuals;
  fitted.n_points = static_cast<std::int64_t>(points.points.size());
  fitted.source = points.kernel;
  fitted.notes = std::move(fit.notes);
  if (points.host_time) {
    fitted.notes.push_back(
        "fixed cost: " + std::to_string(std::lround(1e6 * fitted.law.fixed.value())) +
        " us in the table, mostly the measuring host's, left out");
    fitted.law.fixed = Seconds(0);
    fitted.ci90.fixed_s.reset();
  }
  constexpr double kTooFarOff = 0.25;
  if (fitted.loo.p90 > kTooFarOff) {
    fitted.notes.emplace_back("one in ten is off by more than 25 %: an estimate, no calibration");
  }
  fitted.range = range_of(points.points);
  round_in_place(fitted);
  return fitted;
}

struct TableFile {
  std::string device_key;
  std::string kind;
  std::string engine;
  std::string version;
};

/// "h200_sxm__gemm__vllm_0.24.0"
TableFile named(const std::string& stem) {
  const std::size_t first = stem.find("__");
  const std::size_t second = stem.find("__", first + 2);
  const std::size_t point = stem.find('_', second + 2);
  if (second == std::string::npos || point == std::string::npos) {
    throw InputError(stem + ".csv", "not DEVICE__TABLE__ENGINE_VERSION.csv", "");
  }
  return {stem.substr(0, first),
          stem.substr(first + 2, second - first - 2),
          stem.substr(second + 2, point - second - 2),
          stem.substr(point + 1)};
}

/// Of the hardware catalog.
std::string catalog_id(const std::string& device_key) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 10> kIds{{
      {"a100_sxm", "a100-sxm4-80gb"},
      {"b200_sxm", "b200"},
      {"b300_sxm", "b300"},
      {"b60", "arc-pro-b60-24gb"},
      {"gb200", "gb200"},
      {"gb300", "gb300"},
      {"h100_sxm", "h100-sxm"},
      {"h200_sxm", "h200-sxm"},
      {"l40s", "l40s"},
      {"rtx_pro_6000_server", "rtx-pro-6000-blackwell-server"},
  }};
  for (const auto& [key, id] : kIds) {
    if (key == device_key) {
      return std::string(id);
    }
  }
  throw Unsupported(device_key, "a device that is in no catalog", "");
}

/// "4.19 [4.15, 4.21]" in the table's unit; "-" for a term that the law has not.
std::string shown(const std::optional<double>& value,
                  const std::optional<Interval>& ci90,
                  double scale) {
  if (!value) {
    return "-";
  }
  std::ostringstream text;
  text << std::setprecision(3) << scale * *value;
  if (ci90) {
    text << " [" << scale * ci90->low << ", " << scale * ci90->high << "]";
  }
  return text.str();
}

template <int B, int S, int F>
std::optional<double> number(const std::optional<Quantity<B, S, F>>& value) {
  return value ? std::optional(value->value()) : std::nullopt;
}

/// One row of the tables of docs/calibration.md.
void report(const std::string& file, const FittedClass& fitted) {
  const Law& law = fitted.law;
  const LawIntervals& ci90 = fitted.ci90;
  std::cout << "| " << file << " | " << text_of(fitted.id) << " | " << fitted.n_points << " | "
            << std::setprecision(3) << 100 * fitted.loo.median << " | " << 100 * fitted.loo.mean
            << " | " << 100 * fitted.loo.p90 << " | " << shown(law.fixed.value(), ci90.fixed_s, 1e6)
            << " | " << shown(number(law.wave), ci90.wave_s, 1e6) << " | "
            << shown(number(law.bandwidth), ci90.bandwidth_bytes_per_s, 1e-12) << " | "
            << shown(number(law.flops), ci90.flops_per_s, 1e-12) << " | "
            << shown(law.p, ci90.p, 1.0) << " |\n";
}

void run(const std::filesystem::path& tables, const std::filesystem::path& data) {
  std::map<std::string, Calibration> calibrations;
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(tables)) {
    if (entry.path().extension() == ".csv") {
      paths.push_back(entry.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  for (const std::filesystem::path& path : paths) {
    const TableFile file = named(path.stem().string());
    const HardwareSpec device = find_hardware(data, catalog_id(file.device_key));
    const auto classes = classes_of(file.kind, Table(path.string()), device);
    if (classes.empty()) {
      continue;
    }
    const std::string name = device.id + "-" + file.engine + "-" + file.version;
    Calibration& calibration = calibrations[name];
    calibration.device_name = device.name;
    calibration.device_id = device.id;
    calibration.n_compute_units = device.n_compute_units;
    calibration.engine = file.engine;
    calibration.engine_version = file.version;
    calibration.source = kSource;
    for (const ClassPoints& points : classes) {
      if (points.points.size() >= 5) {
        calibration.classes.push_back(fitted_class(points));
        report(name, calibration.classes.back());
      }
    }
  }
  const std::filesystem::path out = data / "calibrations" / "published";
  std::filesystem::create_directories(out);
  for (const auto& [name, calibration] : calibrations) {
    write_file((out / (name + ".json")).string(), calibration_document(calibration));
  }
}

}  // namespace
}  // namespace kvfathom

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr
        << "usage: kvfathom-fit-tables TABLES DATA\n"
           "TABLES holds DEVICE__TABLE__ENGINE_VERSION.csv; writes DATA/calibrations/published\n";
    return 2;
  }
  try {
    kvfathom::run(argv[1], argv[2]);
  } catch (const kvfathom::Error& error) {
    std::cerr << error.what() << '\n';
    return error.exit_code();
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 4;
  }
}
