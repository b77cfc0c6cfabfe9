#include "model/latency/law.h"

#include <cmath>

namespace kvfathom {
namespace {

struct Terms {
  double fixed_s = 0.0;
  double memory_s = 0.0;
  double compute_s = 0.0;
};

Terms terms_of(const Law& law, const Work& work) {
  return {.fixed_s = (work.launches * law.launch + work.waves * law.wave).value(),
          .memory_s = (work.bytes / law.bandwidth).value(),
          .compute_s = law.rate ? (work.flops / *law.rate).value() : 0.0};
}

}  // namespace

Seconds time_of(const Law& law, const Work& work) {
  const Terms t = terms_of(law, work);
  const double large = t.memory_s > t.compute_s ? t.memory_s : t.compute_s;
  const double small = t.memory_s > t.compute_s ? t.compute_s : t.memory_s;
  if (large <= 0.0) {
    return Seconds(t.fixed_s);
  }
  // Where the smaller adds less than a thousandth, the power would only cost time.
  const double ratio = small / large;
  constexpr double kNegligible = 1e-2;
  if (law.p > 1.5 && ratio < kNegligible) {
    return Seconds(t.fixed_s + large);
  }
  return Seconds(t.fixed_s + large * std::pow(1.0 + std::pow(ratio, law.p), 1.0 / law.p));
}

Bound bound_of(const Law& law, const Work& work) {
  const Terms t = terms_of(law, work);
  if (t.fixed_s >= t.memory_s && t.fixed_s >= t.compute_s) {
    return Bound::launch;
  }
  return t.memory_s >= t.compute_s ? Bound::memory : Bound::compute;
}

}  // namespace kvfathom
