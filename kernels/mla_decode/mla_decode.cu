// Chooses and starts the MLA decode kernels.
#include <cstdint>
#include <string>

#include "kernels/common/error.h"
#include "kernels/mla_decode/mla_decode.h"
#include "kernels/mla_decode/mla_decode_cores.h"
#include "kernels/mla_decode/mla_decode_mma.h"

namespace kvfathom::kernels {
namespace {

simt::Dim3 grid_of(const MlaDecodeParams& params, const MlaDecodePlan& plan) {
  return {static_cast<unsigned>(plan.n_passes * plan.n_splits),
          static_cast<unsigned>(params.cache.n_sequences)};
}

template <typename Row, typename Tile>
bool launch_if_planned(const MlaDecodeParams& params,
                       const MlaDecodePlan& plan,
                       const MlaArgs& args,
                       Stream stream) {
  if (plan.heads_per_block != Tile::kHeads || plan.tile_tokens != Tile::kTokens ||
      plan.stages != Tile::kStages) {
    return false;
  }
  simt::launch(mla_decode_mma<Row, Tile>,
               grid_of(params, plan),
               kMlaThreads,
               MlaLayout<Row, Tile>::kBytes,
               stream,
               args);
  return true;
}

template <typename Row, typename... Tiles>
void launch_tile(MlaTiles<Tiles...>,
                 const MlaDecodeParams& params,
                 const MlaDecodePlan& plan,
                 const MlaArgs& args,
                 Stream stream) {
  if (!(launch_if_planned<Row, Tiles>(params, plan, args, stream) || ...)) {
    throw UnsupportedShape("MLA decode has no kernel of " + std::to_string(plan.heads_per_block) +
                           " heads by " + std::to_string(plan.tile_tokens) + " tokens in " +
                           std::to_string(plan.stages) + " stages");
  }
}

}  // namespace

void mla_decode_launch(const MlaDecodeParams& params,
                       const MlaDecodePlan& plan,
                       void* scratch,
                       Stream stream) {
  constexpr float kLog2E = 1.4426950408889634F;
  const std::int64_t n_rows = static_cast<std::int64_t>(params.cache.n_sequences) * params.n_heads;
  if (n_rows == 0) {
    return;
  }
  const MlaArgs args{
      .q = params.q,
      .cache = params.cache,
      .states = split_states_at(scratch, n_rows, plan.n_splits, params.kv_lora_rank),
      .n_heads = params.n_heads,
      .n_head_groups = plan.n_passes,
      .scale_log2 = params.softmax_scale * kLog2E,
  };
  dispatch_mla_row(params, [&]<typename Row>(Row) {
    if (plan.kernel == MlaDecodeKernel::cuda_cores) {
      simt::launch(mla_decode_cores<Row>,
                   grid_of(params, plan),
                   kMlaThreads,
                   kMlaCoreSharedBytes<Row>,
                   stream,
                   args);
    } else {
      launch_tile<Row>(typename MlaTilesOf<Row>::Type{}, params, plan, args, stream);
    }
  });
  combine_splits_launch(
      args.states, n_rows, params.n_heads, params.kv_lora_rank, nullptr, params.out, stream);
}

}  // namespace kvfathom::kernels
