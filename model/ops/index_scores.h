// What scoring every cached token for DeepSeek Sparse Attention costs, one decode step.
#pragma once

#include <cstdint>

#include "model/ops/op_cost.h"

namespace kvfathom {

struct IndexScoresShape {
  std::int64_t n_sequences = 0;
  std::int64_t n_tokens = 0;  ///< cached, of each sequence
  std::int64_t n_heads = 64;
  std::int64_t head_dim = 128;
};

/// Keys of head_dim E4M3 and one float of scale, read once for all heads; a float a token written.
[[nodiscard]] OpCost index_scores_cost(const IndexScoresShape& shape);

}  // namespace kvfathom
