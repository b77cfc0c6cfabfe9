// Defaults of a serving engine that grow with the device, so that a larger one may hold less.
#pragma once

#include <cstdint>

namespace kvfathom::serving {

/// From so much device memory on, a step is larger than below.
struct SizeDefault {
  std::int64_t from_bytes = 0;
  std::int64_t tokens = 0;           ///< in a step
  std::int64_t tokens_below = 0;     ///< on smaller devices
  std::int64_t sequences_below = 0;  ///< 0: not told apart
};

}  // namespace kvfathom::serving
