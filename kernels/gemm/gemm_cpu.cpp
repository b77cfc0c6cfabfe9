#include <memory>

#include "kernels/common/parallel.h"
#include "kernels/common/weight_product.h"
#include "kernels/gemm/gemm.h"

namespace kvfathom::kernels {

void gemm_cpu(const GemmParams& params, int n_threads) {
  const WeightMatrix& weights = params.weights;
  require_whole_blocks(weights, "gemm");
  const auto floats = [&](std::int64_t columns) {  // not zeroed: each is written before it is read
    return std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(params.m * columns));
  };
  const auto x = floats(weights.k);
  const auto out = floats(weights.n);
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
                      x.get() + first * weights.k);
  });
  times_weights(weights, params.m, x.get(), out.get(), n_threads);
  per_token([&](std::int64_t first, std::int64_t count) {
    narrow_activations(weights.format,
                       out.get() + first * weights.n,
                       count * weights.n,
                       params.out + first * weights.n);
  });
}

}  // namespace kvfathom::kernels
