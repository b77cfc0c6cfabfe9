// Scheme `cross-layer`: no cache of its own, reads an earlier layer's.
#pragma once

#include "model/cache/layout.h"

namespace kvfathom::cache {

/// CLA (arXiv 2405.12981), YOCO, Gemma-3n: capacity falls, reads do not.
struct CrossLayer {
  static constexpr const char* name = "cross-layer";
  static constexpr const char* formula = "0: reads the cache of an earlier layer";
  static constexpr const char* summary = "Layers that read an earlier layer's K and V.";
  static constexpr const char* source = "arXiv 2405.12981";
  std::int64_t with_layer = 0;
  friend bool operator==(const CrossLayer&, const CrossLayer&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const CrossLayer& s) {
  return {.shares_with_layer = s.with_layer};
}

}  // namespace kvfathom::cache
