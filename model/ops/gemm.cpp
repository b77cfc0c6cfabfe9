#include "model/ops/gemm.h"

namespace kvfathom {

OpCost gemm_cost(const GemmShape& shape) {
  const auto activation_bytes = static_cast<double>(shape.activation_bytes);
  const auto m = static_cast<double>(shape.m);
  const auto n = static_cast<double>(shape.n);
  const auto k = static_cast<double>(shape.k);
  const auto row = static_cast<double>(row_bytes(shape.weights, shape.k));
  return OpCost{.read = Bytes(n * row + activation_bytes * m * k),
                .written = Bytes(activation_bytes * m * n),
                .flops = Flops(2.0 * m * n * k)};
}

}  // namespace kvfathom
