#include "model/latency/calibration.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace kvfathom {
namespace {

double ratio_outside(const Interval& range, double value) {
  if (range.low <= 0.0 || range.high <= 0.0 || value <= 0.0) {
    return 1.0;  // a quantity that this class does not depend on
  }
  return std::max({1.0, range.low / value, value / range.high});
}

/// Distance as a ratio, in octaves; an absent value is as far as can be from one that is there.
double octaves(const std::optional<std::int64_t>& a, const std::optional<std::int64_t>& b) {
  constexpr double kFarthest = 64.0;
  if (!a || !b) {
    return a == b ? 0.0 : kFarthest;
  }
  return std::abs(std::log2(static_cast<double>(*a) / static_cast<double>(*b)));
}

}  // namespace

const FittedClass* find_class(const Calibration& calibration, const KernelClass& id) {
  const auto found = std::find_if(calibration.classes.begin(),
                                  calibration.classes.end(),
                                  [&](const FittedClass& fitted) { return fitted.id == id; });
  return found == calibration.classes.end() ? nullptr : &*found;
}

const FittedClass* nearest_class(const Calibration& calibration, const KernelClass& id) {
  const FittedClass* nearest = nullptr;
  std::pair<double, double> least;
  for (const FittedClass& fitted : calibration.classes) {
    const KernelClass& other = fitted.id;
    if (other.op != id.op || other.format != id.format || other.variant != id.variant) {
      continue;
    }
    const std::pair distance(octaves(other.head_dim, id.head_dim), octaves(other.group, id.group));
    if (nearest == nullptr || distance < least) {
      nearest = &fitted;
      least = distance;
    }
  }
  return nearest;
}

double widening(const WorkRange& range, const Work& work) {
  const double outside = std::max({ratio_outside(range.bytes, work.bytes.value()),
                                   ratio_outside(range.flops, work.flops.value()),
                                   ratio_outside(range.waves, work.waves)});
  return 1.0 + std::log2(outside);
}

}  // namespace kvfathom
