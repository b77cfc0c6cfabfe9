// What causal prefill attention asks of the machine.
#pragma once

#include <cstdint>

#include "model/ops/op_cost.h"

namespace kvfathom {

/// A chunk of one sequence; the costs of a batch add up.
struct PrefillAttentionShape {
  std::int64_t n_query_tokens = 0;
  std::int64_t n_cached_tokens = 0;  ///< the chunk's own tokens included, at the end
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int window_tokens = 0;  ///< 0: all
};

/// Pairs of a query and a token that it sees: n (n + 1) / 2 for a whole prompt without a window.
[[nodiscard]] double prefill_attention_pairs(const PrefillAttentionShape& shape);

/// Queries, outputs, and every K and V row that any query sees, once, in 16 bits; 4 head_dim FLOPs
/// a pair and head (two products).
[[nodiscard]] OpCost prefill_attention_cost(const PrefillAttentionShape& shape);

/// What the blocks of a tiled kernel ask of the L2 cache: each group of `query_tile` queries of
/// each head reads the rows it sees again.
[[nodiscard]] Bytes prefill_attention_requested(const PrefillAttentionShape& shape, int query_tile);

}  // namespace kvfathom
