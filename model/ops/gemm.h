// What products of weights and activations ask of the machine.
#pragma once

#include "model/dtype.h"
#include "model/ops/op_cost.h"

namespace kvfathom {

/// out [m, n] = x [m, k] times weights [n, k] transposed.
struct GemmShape {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  DType weights = DType::bf16;
  std::int64_t activation_bytes = 2;  ///< of an element of x and of out
};

/// Weights and activations each pass once.
[[nodiscard]] OpCost gemm_cost(const GemmShape& shape);

}  // namespace kvfathom
