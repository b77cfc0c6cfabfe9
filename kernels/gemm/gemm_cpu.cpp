#include <vector>

#include "kernels/common/parallel.h"
#include "kernels/common/weight_product.h"
#include "kernels/gemm/gemm.h"

namespace kvfathom::kernels {

void gemm_cpu(const GemmParams& params, int n_threads) {
  const WeightMatrix& weights = params.weights;
  require_whole_blocks(weights, "gemm");
  std::vector<float> x(static_cast<std::size_t>(params.m * weights.k));
  std::vector<float> out(static_cast<std::size_t>(params.m * weights.n));
  const auto per_token = [&](auto&& work) {
    // A few tokens are not worth waking threads for.
    parallel_shares(params.m > kLargestGemvRows ? n_threads : 1,
                    params.m,
                    [&](int, std::int64_t first, std::int64_t last) { work(first, last - first); });
  };
  per_token([&](std::int64_t first, std::int64_t count) {
    widen_activations(weights.format,
                      params.x + first * weights.k,
                      count * weights.k,
                      x.data() + first * weights.k);
  });
  times_weights(weights, params.m, x.data(), out.data(), n_threads);
  per_token([&](std::int64_t first, std::int64_t count) {
    narrow_activations(weights.format,
                       out.data() + first * weights.n,
                       count * weights.n,
                       params.out + first * weights.n);
  });
}

}  // namespace kvfathom::kernels
