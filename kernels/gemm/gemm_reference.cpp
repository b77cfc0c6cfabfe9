#include <cmath>
#include <vector>

#include "kernels/gemm/gemm.h"

namespace kvfathom::kernels {

void gemm_reference(const GemmParams& params, const GemmReference& result) {
  const WeightMatrix& weights = params.weights;
  require_whole_blocks(weights, "gemm");
  for (std::int64_t row = 0; row < weights.n; ++row) {
    const std::vector<double> w = decode_weights(weights.format, weights.k, weights.row(row));
    for (std::int64_t token = 0; token < params.m; ++token) {
      double sum = 0.0;
      double magnitude = 0.0;
      for (std::int64_t i = 0; i < weights.k; ++i) {
        const double x = activation_to_f32(weights.format, params.x[token * weights.k + i]);
        sum += x * w[static_cast<std::size_t>(i)];
        magnitude += std::fabs(x * w[static_cast<std::size_t>(i)]);
      }
      result.out[token * weights.n + row] = sum;
      result.magnitude[token * weights.n + row] = magnitude;
    }
  }
}

}  // namespace kvfathom::kernels
