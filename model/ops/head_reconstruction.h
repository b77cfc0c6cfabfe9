// The cost of predicting heads from other heads (scheme head-linear), as
// kernels/head_reconstruction does it.
#pragma once

#include <cstdint>
#include <vector>

#include "model/ops/op_cost.h"

namespace kvfathom {

/// Query heads that attend through the same stored heads.
struct HeadGroupShape {
  std::int64_t n_rows = 0;    ///< query heads
  std::int64_t n_slices = 1;  ///< stored heads: the references, or the head itself
  bool predicted = false;
};

struct HeadReconstructionShape {
  std::int64_t n_sequences = 1;
  std::int64_t n_tokens = 0;  ///< of each sequence
  std::int64_t n_heads = 0;
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t n_exact = 0;  ///< first and last tokens whose predicted heads are exact
  std::int64_t n_splits = 1;
  std::vector<HeadGroupShape> k;  ///< together all n_heads
  std::vector<HeadGroupShape> v;
};

/// Materialised rows of the predicted heads of one side. References are read once for each head
/// that they serve.
[[nodiscard]] OpCost head_rows_cost(const HeadReconstructionShape& shape,
                                    const std::vector<HeadGroupShape>& groups);
/// Absorbed decode. A group's stored heads are read once for every 16 of its rows for the scores;
/// for the sums once for every 16, or 64 where the largest group has more than 16.
[[nodiscard]] OpCost head_decode_cost(const HeadReconstructionShape& shape);

}  // namespace kvfathom
