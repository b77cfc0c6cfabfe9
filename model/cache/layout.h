// What one layer caches, in elements; the engine turns elements into bytes with its own rounding.
#pragma once

#include <cstdint>
#include <optional>

namespace kvfathom::cache {

/// What must exist of the rows beyond token_cap while a prompt is processed: nothing (they fall out
/// as they come), those of one layer (each is compressed behind its own pass), or of all layers.
enum class Prefill : std::uint8_t { streamed, layerwise, whole };

/// The cache of one layer under one scheme. All counts are elements, per token or per sequence.
struct CacheLayout {
  std::int64_t k_row_elements = 0;  ///< per token, in the K cache type
  std::int64_t v_row_elements = 0;  ///< per token, in the V cache type; 0 where V is a view of K
  std::optional<std::int64_t> token_cap = std::nullopt;  ///< nothing is added beyond it (a window)
  std::int64_t state_elements = 0;  ///< recurrent state per sequence, however long it is
  std::int64_t conv_elements = 0;   ///< convolution history per sequence
  std::optional<std::int64_t> shares_with_layer = std::nullopt;  ///< owns nothing, reads that one
  /// Per token in a format of the scheme's own: bits, groups' scales and minima among them.
  std::int64_t k_packed_bits = 0;
  std::int64_t v_packed_bits = 0;
  /// So many of a sequence's tokens are kept as these 16-bit rows in place of all rows above: the
  /// last ones, or the first and the last.
  std::int64_t exact_tokens = 0;
  std::int64_t exact_k_elements = 0;
  std::int64_t exact_v_elements = 0;
  /// K leaves its 16-bit rows in whole blocks of so many tokens (KIVI); 0: token by token.
  std::int64_t k_flush_tokens = 0;
  std::int64_t extra_weight_elements = 0;  ///< 16-bit weights of the scheme's own, per layer
  /// Written out in 16 bits for a token while the layer is read; one layer, one sequence at a time.
  std::int64_t rebuilt_elements = 0;
  Prefill prefill = Prefill::streamed;
  std::optional<std::int64_t> prompt_token_cap = std::nullopt;  ///< before any eviction
  friend bool operator==(const CacheLayout&, const CacheLayout&) = default;
};

}  // namespace kvfathom::cache
