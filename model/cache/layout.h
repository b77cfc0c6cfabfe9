// What one layer caches, in elements; the engine turns elements into bytes with its own rounding.
#pragma once

#include <cstdint>
#include <optional>

namespace kvfathom::cache {

/// The cache of one layer under one scheme. All counts are elements, per token or per sequence.
struct CacheLayout {
  std::int64_t k_row_elements = 0;  ///< per token, in the K cache type
  std::int64_t v_row_elements = 0;  ///< per token, in the V cache type; 0 where V is a view of K
  std::optional<std::int64_t> token_cap = std::nullopt;  ///< nothing is added beyond it (a window)
  std::int64_t state_elements = 0;  ///< recurrent state per sequence, however long it is
  std::int64_t conv_elements = 0;   ///< convolution history per sequence
  std::optional<std::int64_t> shares_with_layer = std::nullopt;  ///< owns nothing, reads that one
  friend bool operator==(const CacheLayout&, const CacheLayout&) = default;
};

}  // namespace kvfathom::cache
