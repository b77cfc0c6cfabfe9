#include "model/ops/index_scores.h"

namespace kvfathom {

OpCost index_scores_cost(const IndexScoresShape& shape) {
  constexpr double kFloat = 4.0;
  const auto sequences = static_cast<double>(shape.n_sequences);
  const auto dim = static_cast<double>(shape.head_dim);
  const double heads = sequences * static_cast<double>(shape.n_heads);
  const double tokens = sequences * static_cast<double>(shape.n_tokens);
  return OpCost{
      .read = Bytes(tokens * (dim + kFloat) + heads * (dim + kFloat)),  // keys; queries, weights
      .written = Bytes(tokens * kFloat),
      .flops = Flops(2.0 * dim * static_cast<double>(shape.n_heads) * tokens),
  };
}

}  // namespace kvfathom
