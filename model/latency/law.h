// The law of one kernel class: how long so much work takes.
#pragma once

#include <optional>

#include "model/units.h"

namespace kvfathom {

/// What a law needs to know of an operation.
struct Work {
  Bytes bytes;
  Flops flops;
  double launches = 1.0;
  double waves = 0.0;  ///< of blocks over the device's units
};

/// t0 launches + wave waves + ((bytes / bandwidth)^p + (flops / rate)^p)^(1/p): p is 1 where loads
/// and arithmetic take turns and grows as they overlap (kernels' calibration, docs/calibration.md).
struct Law {
  Seconds launch;
  Seconds wave;
  BytesPerSecond bandwidth;
  std::optional<FlopsPerSecond> rate;  ///< none: arithmetic never binds
  double p = 2.0;
};

enum class Bound : unsigned char { launch, memory, compute };

[[nodiscard]] Seconds time_of(const Law& law, const Work& work);

/// Which term is the largest.
[[nodiscard]] Bound bound_of(const Law& law, const Work& work);

}  // namespace kvfathom
