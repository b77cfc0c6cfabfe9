// A predicted number and how sure it is.
#pragma once

#include "model/provenance.h"

namespace kvfathom {

/// With a 90 % interval. Seconds, or tokens a second: the field's name says which.
struct Estimate {
  double value = 0.0;
  double low = 0.0;
  double high = 0.0;
  Provenance provenance = Provenance::assumed;
};

/// The rate of `n` in that time, whose bounds change places.
[[nodiscard]] inline Estimate per_second(double n, const Estimate& time_s) {
  return {n / time_s.value, n / time_s.high, n / time_s.low, time_s.provenance};
}

}  // namespace kvfathom
