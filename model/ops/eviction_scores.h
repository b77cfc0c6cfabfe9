// What scoring, selecting and gathering the tokens that an eviction keeps costs.
#pragma once

#include <cstdint>

#include "model/ops/op_cost.h"

namespace kvfathom {

struct EvictionShape {
  std::int64_t n_sequences = 0;
  std::int64_t n_heads = 0;
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t n_tokens = 0;          ///< cached, of each sequence and head
  std::int64_t n_queries = 1;         ///< whose probabilities are summed; at most n_tokens
  bool per_layer = false;             ///< one row of scores for all heads (TOVA)
  bool accumulate = false;            ///< onto the scores of earlier steps (H2O)
  std::int64_t stored_row_bytes = 0;  ///< K or V of one token and head, scales included
};

/// Three launches: logits (K read once, for all queries), the sums of their rows, and the scores.
/// Logits are floats in memory: written once and read twice.
[[nodiscard]] OpCost eviction_scores_cost(const EvictionShape& shape);

/// `n_window` newest tokens have no pooled score.
[[nodiscard]] OpCost pool_scores_cost(const EvictionShape& shape,
                                      std::int64_t n_window,
                                      std::int64_t width);

/// Picks `n_kept` of each row of scores; `n_certain` of them are kept without a look at theirs.
[[nodiscard]] OpCost select_tokens_cost(const EvictionShape& shape,
                                        std::int64_t n_kept,
                                        std::int64_t n_certain);

/// Copies `n_kept` rows of K and of V a head, and writes the new lengths.
[[nodiscard]] OpCost gather_cache_cost(const EvictionShape& shape, std::int64_t n_kept);

}  // namespace kvfathom
