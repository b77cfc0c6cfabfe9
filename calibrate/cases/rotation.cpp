#include "calibrate/cases/rotation.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>

#include "model/text/size.h"

namespace kvfathom::bench {
namespace {

constexpr int kMostSets = 512;

/// Bytes of the CPU's largest cache; 0 where the kernel does not tell.
double last_cache_bytes() {
  std::int64_t largest = 0;
  for (int index = 0; index < 8; ++index) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) +
                       "/size");
    std::string text;
    if (file >> text) {
      largest = std::max(largest, parse_size(text, "cache size"));
    }
  }
  return static_cast<double>(largest);
}

}  // namespace

double rotation_bytes(Place place, std::optional<std::int64_t> asked) {
  if (asked) {
    return static_cast<double>(*asked);
  }
  const double cache =
      place == Place::cpu ? last_cache_bytes() : static_cast<double>(kernels::device().l2_bytes);
  return std::max(4.0 * cache, kLeastRotationBytes);
}

int sets_for(const Case& c, double rotation) {
  const double sets = std::ceil(rotation / std::max(c.bytes_per_set, 1.0));
  return static_cast<int>(std::clamp(sets, 1.0, static_cast<double>(kMostSets)));
}

double error_of(PreparedRun& prepared, Place place) {
  prepared.run(0, nullptr);
  if (place == Place::cuda) {
    kernels::synchronize();
  }
  return prepared.worst_error();
}

}  // namespace kvfathom::bench
