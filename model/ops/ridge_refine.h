// The cost of one ridge refinement (scheme evict-grkv), as kernels/ridge_refine runs it.
#pragma once

#include <cstdint>

#include "model/ops/op_cost.h"

namespace kvfathom {

struct RidgeRefineShape {
  std::int64_t n_problems = 0;  ///< layers x KV heads
  std::int64_t n_tokens = 0;    ///< of the full cache
  std::int64_t n_kept = 0;      ///< per problem
  std::int64_t n_rows = 0;      ///< query heads per KV head x window
  std::int64_t head_dim = 0;
  std::int64_t n_splits = 1;            ///< runs that the full cache is cut into
  std::int64_t cg_iterations = 16;      ///< that are needed
  std::int64_t cg_max_iterations = 16;  ///< that are launched: those not needed read nothing
};
[[nodiscard]] OpCost ridge_refine_cost(const RidgeRefineShape& shape);

}  // namespace kvfathom
