// The K and V rows of one attention layer, from which the lossy and rebuilding schemes start.
#pragma once

#include "model/cache/full.h"

namespace kvfathom::cache {

/// As `Full`, over the layer's own window where it has one.
struct KvRows : Full {
  std::int64_t window_tokens = 0;  ///< 0: the whole context
  friend bool operator==(const KvRows&, const KvRows&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const KvRows& s) {
  CacheLayout result = layout(static_cast<const Full&>(s));
  if (s.window_tokens > 0) {
    result.token_cap = s.window_tokens;
  }
  return result;
}

}  // namespace kvfathom::cache
