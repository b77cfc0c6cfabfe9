// A predicted time with its 90 % interval and where it comes from.
#pragma once

#include <algorithm>

#include "model/provenance.h"
#include "model/units.h"

namespace kvfathom {

struct Estimate {
  Seconds value = {};
  Seconds low = {};   ///< 5 % are below
  Seconds high = {};  ///< 5 % are above
  Provenance provenance = Provenance::exact;
  friend bool operator==(const Estimate&, const Estimate&) = default;

  /// One after the other. The bounds add up too: a law that is off is off for every call of a step,
  /// so nothing averages out.
  friend Estimate operator+(const Estimate& a, const Estimate& b) {
    return {a.value + b.value, a.low + b.low, a.high + b.high, worst(a.provenance, b.provenance)};
  }
  friend Estimate operator*(double n_times, const Estimate& a) {
    return {n_times * a.value, n_times * a.low, n_times * a.high, a.provenance};
  }
};

/// Side by side: the slower one is waited for.
[[nodiscard]] inline Estimate slower(const Estimate& a, const Estimate& b) {
  return {std::max(a.value, b.value),
          std::max(a.low, b.low),
          std::max(a.high, b.high),
          worst(a.provenance, b.provenance)};
}

}  // namespace kvfathom
