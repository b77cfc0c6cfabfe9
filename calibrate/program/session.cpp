#include "calibrate/program/session.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <ctime>
#include <iostream>
#include <optional>

#include <sys/utsname.h>

#include "calibrate/calibrations_directory.h"
#include "calibrate/local_device.h"
#include "calibrate/program/fit_classes.h"
#include "calibrate/program/journal.h"
#include "calibrate/program/measure.h"
#include "kernels/common/device.h"
#include "kernels/common/parallel.h"
#include "model/error.h"
#include "model/io/calibration_json.h"
#include "model/io/file.h"

namespace kvfathom::calibrate {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point started) {
  return std::chrono::duration<double>(Clock::now() - started).count();
}

std::string utc_now(const char* format) {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), format, &parts);
  return text.data();
}

std::string os_kernel() {
  utsname names{};
  return ::uname(&names) == 0 ? std::string(names.sysname) + " " + names.release : "unknown";
}

std::string compiler() {
  return std::string("C++ ") + __VERSION__;
}

/// Points done and the time left, on one line that is written over.
class Progress {
 public:
  explicit Progress(std::size_t n_points) : n_points_(n_points) {}
  void show(std::size_t n_done, std::size_t n_measured, const std::string& name) const {
    std::string text = std::to_string(n_done) + "/" + std::to_string(n_points_);
    if (n_measured > 0) {
      const double each_s = seconds_since(started_) / static_cast<double>(n_measured);
      const double left_s = each_s * static_cast<double>(n_points_ - n_done);
      text += ", " + std::to_string(std::lround(left_s)) + " s left";
    }
    constexpr std::size_t kWidth = 79;
    text = (text + ": " + name).substr(0, kWidth);
    std::cerr << '\r' << text << std::string(kWidth - text.size(), ' ') << std::flush;
  }
  static void end() { std::cerr << '\n'; }

 private:
  std::size_t n_points_;
  Clock::time_point started_ = Clock::now();
};

/// Measures what the journal lacks; returns the bandwidth half way, if it came by there.
std::optional<double> measure_points(const Plan& plan,
                                     const SessionSettings& settings,
                                     const TimerOptions& options,
                                     Journal& journal) {
  const Progress progress(plan.points.size());
  std::optional<double> middle;
  std::size_t n_measured = 0;
  for (std::size_t i = 0; i < plan.points.size(); ++i) {
    const PlannedPoint& point = plan.points[i];
    if (journal.times_s().contains(point.name())) {
      continue;
    }
    progress.show(i, n_measured, point.name());
    if (!middle && i >= plan.points.size() / 2) {
      middle = read_bandwidth(settings.plan.place, settings.plan.n_threads, options);
    }
    journal.add(point.name(), measure(*point.kernel, point.request, options));
    ++n_measured;
  }
  progress.show(plan.points.size(), n_measured, "measured");
  Progress::end();
  return middle;
}

/// Why the times may be off, from how the bandwidth moved.
void flag_drift(Session& session, bench::Place place) {
  const double most = place == bench::Place::cpu ? 0.05 : 0.02;
  const auto [low, high] =
      std::minmax_element(session.read_bytes_per_s.begin(), session.read_bytes_per_s.end());
  const double moved = *high / *low - 1.0;
  if (moved > most) {
    session.flags.push_back("drift: read bandwidth moved by " +
                            std::to_string(std::lround(100.0 * moved)) + " %");
  }
}

/// One line that says of what machine, build and plan a journal is.
std::string heading_of(const Calibration& calibration, const SessionSettings& settings) {
  const Session& session = *calibration.session;
  return "kvfathom.journal/1 " + calibration.device_name + "; " + session.os_kernel + "; " +
         session.compiler + "; " + session.build + "; threads " +
         std::to_string(session.n_threads) + (settings.plan.full ? "; full" : "; quick") +
         "; seed " + std::to_string(session.seed) + "; only " + settings.plan.only;
}

Calibration described(const SessionSettings& settings) {
  Calibration calibration;
  calibration.device_name = device_name(settings.plan.place);
  calibration.engine = "reference";
  calibration.engine_version = KVFATHOM_VERSION;
  calibration.source =
      std::string("kvfathom calibrate ") + (settings.plan.full ? "--full" : "--quick");
  if (settings.plan.place == bench::Place::cuda) {
    calibration.n_compute_units = kernels::device().n_multiprocessors;
  }
  calibration.session = Session{.utc = utc_now("%Y-%m-%dT%H:%M:%SZ"),
                                .os_kernel = os_kernel(),
                                .compiler = compiler(),
                                .build = KVFATHOM_COMMIT,
                                .n_threads = kernels::n_threads_or_all(settings.plan.n_threads),
                                .seed = static_cast<std::int64_t>(settings.plan.seed)};
  return calibration;
}

}  // namespace

std::string file_name_of(const std::string& device) {
  std::string name;
  for (const char c : device) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    const bool upper = c >= 'A' && c <= 'Z';
    if (plain || upper) {
      name += upper ? static_cast<char>(c - 'A' + 'a') : c;
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
  }
  return name.empty() || name.back() != '-' ? name : name.substr(0, name.size() - 1);
}

std::string device_name(bench::Place place) {
  return place == bench::Place::cpu ? local_host().name : std::string(kernels::device().name);
}

fs::path output_path(const SessionSettings& settings, const std::string& device) {
  fs::path path = settings.out;
  if (path.empty()) {
    path = calibrations_directory();
    if (path.empty()) {
      throw MachineError("HOME", "not set: no folder for calibrations", "give --out FILE");
    }
    path /= (file_name_of(device) + "-" + utc_now("%Y-%m-%d") + ".json");
  }
  std::error_code error;
  if (path.has_parent_path() && !fs::create_directories(path.parent_path(), error) && error) {
    throw MachineError(path.parent_path().string(), error.message(), "give --out FILE");
  }
  return path;
}

Calibration run_session(const SessionSettings& settings, const fs::path& path) {
  const Clock::time_point started = Clock::now();
  Calibration calibration = described(settings);
  Session& session = *calibration.session;
  const std::string reason = busy(settings.plan.n_threads);
  if (!reason.empty()) {
    if (!settings.anyway) {
      throw MachineError("kvfathom calibrate",
                         "the machine is busy: " + reason,
                         "wait until it is not, or give --anyway and have the file marked");
    }
    session.flags.push_back("busy: " + reason);
  }
  const TimerOptions options = timer_options(settings.plan.full);
  const Plan plan = make_plan(settings.plan);
  Journal journal(path.string() + ".partial", heading_of(calibration, settings));
  if (const std::size_t n = journal.times_s().size(); n > 0) {
    std::cerr << n << " points are taken up from an interrupted run\n";
  }
  if (plan.points.empty()) {
    throw InputError("--only", "\"" + settings.plan.only + "\" begins no class", "as in gemm/bf16");
  }
  std::cerr << "ceilings ..." << std::flush;
  calibration.ceilings = measure_ceilings(settings.plan.place, settings.plan.n_threads, options);
  session.read_bytes_per_s.push_back(calibration.ceilings.read->value());
  if (const auto middle = measure_points(plan, settings, options, journal)) {
    session.read_bytes_per_s.push_back(*middle);
  }
  session.read_bytes_per_s.push_back(
      read_bandwidth(settings.plan.place, settings.plan.n_threads, options));
  flag_drift(session, settings.plan.place);
  calibration.ceilings.read = BytesPerSecond(
      *std::max_element(session.read_bytes_per_s.begin(), session.read_bytes_per_s.end()));
  calibration.classes = fit_classes(
      plan, journal.times_s(), calibration.ceilings, calibration.n_compute_units.value_or(0));
  session.duration_s = seconds_since(started);
  write_file(path.string(), calibration_document(calibration));
  journal.finish();
  return calibration;
}

}  // namespace kvfathom::calibrate
