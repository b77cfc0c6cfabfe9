#include <string>

#include "kernels/common/error.h"
#include "kernels/prefill_attention/prefill_attention.h"
#include "kernels/prefill_attention/prefill_attention_tile.h"

namespace kvfathom::kernels {
namespace {

template <int HeadDim, typename... Tiles>
PrefillAttentionPlan first_that_fits(PrefillTiles<Tiles...>, std::int64_t shared_bytes) {
  PrefillAttentionPlan plan;
  const auto take = [&](int query_tile, int key_tile, std::int64_t bytes) {
    if (bytes <= shared_bytes) {
      plan = PrefillAttentionPlan{PrefillKernel::tensor_cores, query_tile, key_tile, bytes};
    }
    return bytes <= shared_bytes;
  };
  static_cast<void>(
      (take(Tiles::kQueries, Tiles::kKeyTokens, PrefillLayout<HeadDim, Tiles>::kBytes) || ...));
  return plan;
}

}  // namespace

PrefillAttentionPlan prefill_attention_plan(const PrefillAttentionParams& params,
                                            const DeviceInfo& device,
                                            PrefillKernel kernel) {
  const int needs_capability = params.cache.format == KvFormat::bf16 ? 80 : 75;
  PrefillAttentionPlan plan;
  dispatch_prefill(params, [&](auto head_dim) {
    if (kernel != PrefillKernel::cuda_cores && device.compute_capability >= needs_capability) {
      plan = first_that_fits<head_dim>(typename PrefillTilesOf<head_dim>::Type{},
                                       device.shared_bytes_per_block);
    }
    if (plan.query_tile == 0) {
      if (kernel == PrefillKernel::tensor_cores) {
        throw UnsupportedShape(
            "prefill attention on tensor cores: this device has none for " +
            std::string(name(params.cache.format)) +
            ", or too little shared memory for head_dim = " + std::to_string(params.head_dim));
      }
      plan = PrefillAttentionPlan{.kernel = PrefillKernel::cuda_cores,
                                  .query_tile = kPrefillWarps * kPrefillCoreQueries,
                                  .key_tile = kPrefillCoreTokens,
                                  .shared_bytes = PrefillCoreLayout<head_dim>::kBytes};
    }
  });
  return plan;
}

}  // namespace kvfathom::kernels
