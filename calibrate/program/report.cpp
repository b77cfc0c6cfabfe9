#include "calibrate/program/report.h"

#include <algorithm>
#include <cstdio>
#include <ostream>
#include <string>
#include <vector>

namespace kvfathom::calibrate {
namespace {

std::string scaled(double value, double unit, const char* absent = "-") {
  if (value <= 0.0) {
    return absent;
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value / unit);
  return text;
}

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", 100.0 * share);
  return text;
}

void row(std::ostream& out, const std::vector<std::string>& cells) {
  constexpr std::size_t kFirst = 34;
  constexpr std::size_t kOther = 11;
  std::string line =
      cells.front() + std::string(kFirst - std::min(kFirst, cells.front().size()), ' ');
  for (std::size_t i = 1; i < cells.size(); ++i) {
    line += std::string(kOther - std::min(kOther - 1, cells[i].size()), ' ') + cells[i];
  }
  out << line << '\n';
}

double bandwidth_of(const Law& law) {
  return law.bandwidth ? law.bandwidth->value() : 0.0;
}
double rate_of(const Law& law) {
  return law.flops ? law.flops->value() : 0.0;
}

std::string change(double before, double now, double unit) {
  return scaled(before, unit) + ">" + scaled(now, unit);
}

/// Median over the points of the new law's time over the old one's.
double median_ratio(const FittedClass& before, const FittedClass& now) {
  std::vector<double> ratios;
  for (const CalibrationPoint& point : now.points) {
    ratios.push_back(time(now.law, point.work) / time(before.law, point.work));
  }
  if (ratios.empty()) {
    return 0.0;
  }
  std::sort(ratios.begin(), ratios.end());
  return ratios[ratios.size() / 2];
}

}  // namespace

void print_calibration(std::ostream& out, const Calibration& calibration) {
  const Ceilings& ceilings = calibration.ceilings;
  out << calibration.device_name;
  if (ceilings.read && ceilings.copy) {
    out << ": reads " << scaled(ceilings.read->value(), 1e9) << " GB/s, copies "
        << scaled(ceilings.copy->value(), 1e9) << " GB/s";
  }
  for (const auto& [format, rate] : ceilings.flops) {
    out << ", " << format << " products " << scaled(rate.value(), 1e9) << " GFLOP/s";
  }
  out << '\n';
  if (calibration.session) {
    for (const std::string& flag : calibration.session->flags) {
      out << "flagged: " << flag << '\n';
    }
  }
  row(out, {"class", "fixed us", "GB/s", "GFLOP/s", "error %", "held out %"});
  for (const FittedClass& fitted : calibration.classes) {
    row(out,
        {text_of(fitted.id),
         scaled(fitted.law.fixed.value(), 1e-6),
         scaled(bandwidth_of(fitted.law), 1e9),
         scaled(rate_of(fitted.law), 1e9),
         percent(fitted.loo.median),
         fitted.holdout ? percent(fitted.holdout->median) : "-"});
  }
}

void print_comparison(std::ostream& out, const Calibration& before, const Calibration& now) {
  row(out, {"class", "us", "GB/s", "GFLOP/s", "time x"});
  for (const FittedClass& fitted : now.classes) {
    const FittedClass* const old = find_class(before, fitted.id);
    if (old == nullptr) {
      row(out, {text_of(fitted.id), "new"});
      continue;
    }
    row(out,
        {text_of(fitted.id),
         change(old->law.fixed.value(), fitted.law.fixed.value(), 1e-6),
         change(bandwidth_of(old->law), bandwidth_of(fitted.law), 1e9),
         change(rate_of(old->law), rate_of(fitted.law), 1e9),
         scaled(median_ratio(*old, fitted), 1.0)});
  }
  for (const FittedClass& old : before.classes) {
    if (find_class(now, old.id) == nullptr) {
      row(out, {text_of(old.id), "gone"});
    }
  }
}

}  // namespace kvfathom::calibrate
