// Chooses and starts the prefill attention kernels.
#include <string>

#include "kernels/common/error.h"
#include "kernels/prefill_attention/prefill_attention.h"
#include "kernels/prefill_attention/prefill_attention_cores.h"
#include "kernels/prefill_attention/prefill_attention_mma.h"

namespace kvfathom::kernels {
namespace {

simt::Dim3 grid_of(const PrefillAttentionParams& params, const PrefillAttentionPlan& plan) {
  const int n_tiles = (params.longest_query_tokens + plan.query_tile - 1) / plan.query_tile;
  return {static_cast<unsigned>(n_tiles),
          static_cast<unsigned>(params.n_heads),
          static_cast<unsigned>(params.cache.n_sequences)};
}

template <typename Element, int HeadDim, typename Tile>
bool launch_if_planned(const PrefillAttentionParams& params,
                       const PrefillAttentionPlan& plan,
                       const PrefillArgs& args,
                       Stream stream) {
  if (plan.query_tile != Tile::kQueries || plan.key_tile != Tile::kKeyTokens) {
    return false;
  }
  simt::launch(prefill_attention_mma<Element, HeadDim, Tile>,
               grid_of(params, plan),
               kPrefillThreads,
               PrefillLayout<HeadDim, Tile>::kBytes,
               stream,
               args);
  return true;
}

template <typename Element, int HeadDim, typename... Tiles>
void launch_tile(PrefillTiles<Tiles...>,
                 const PrefillAttentionParams& params,
                 const PrefillAttentionPlan& plan,
                 const PrefillArgs& args,
                 Stream stream) {
  if (!(launch_if_planned<Element, HeadDim, Tiles>(params, plan, args, stream) || ...)) {
    throw UnsupportedShape("prefill attention has no kernel of " + std::to_string(plan.query_tile) +
                           " queries by " + std::to_string(plan.key_tile) +
                           " tokens for head_dim = " + std::to_string(HeadDim));
  }
}

template <typename Element>
void launch_format(const PrefillAttentionParams& params,
                   const PrefillAttentionPlan& plan,
                   const PrefillArgs& args,
                   Stream stream) {
  dispatch_prefill(params, [&](auto head_dim) {
    if (plan.kernel == PrefillKernel::cuda_cores) {
      simt::launch(prefill_attention_cores<Element, head_dim>,
                   grid_of(params, plan),
                   kPrefillThreads,
                   PrefillCoreLayout<head_dim>::kBytes,
                   stream,
                   args);
    } else {
      launch_tile<Element, head_dim>(
          typename PrefillTilesOf<head_dim>::Type{}, params, plan, args, stream);
    }
  });
}

}  // namespace

void prefill_attention_launch(const PrefillAttentionParams& params,
                              const PrefillAttentionPlan& plan,
                              Stream stream) {
  constexpr float kLog2E = 1.4426950408889634F;
  if (params.longest_query_tokens == 0 || params.cache.n_sequences == 0) {
    return;
  }
  const PrefillArgs args{
      .q = params.q,
      .cache = params.cache,
      .query_offsets = params.query_offsets,
      .out = params.out,
      .n_heads = params.n_heads,
      .window_tokens = params.window_tokens,
      .scale_log2 = params.softmax_scale * kLog2E,
  };
  if (params.cache.format == KvFormat::bf16) {
    launch_format<Bf16>(params, plan, args, stream);
  } else {
    launch_format<F16>(params, plan, args, stream);
  }
}

}  // namespace kvfathom::kernels
