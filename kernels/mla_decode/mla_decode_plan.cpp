#include <algorithm>
#include <cstdint>
#include <string>

#include "kernels/common/error.h"
#include "kernels/mla_decode/mla_decode.h"
#include "kernels/mla_decode/mla_decode_tile.h"

namespace kvfathom::kernels {
namespace {

constexpr int ceil_divide(int a, int b) {
  return (a + b - 1) / b;
}

template <typename Row, typename Tile>
void consider(int n_heads, std::int64_t shared_bytes, MlaDecodePlan& best) {
  const MlaDecodePlan plan{
      .kernel = MlaDecodeKernel::tensor_cores,
      .heads_per_block = Tile::kHeads,
      .tile_tokens = Tile::kTokens,
      .stages = Tile::kStages,
      .n_passes = ceil_divide(n_heads, Tile::kHeads),
      .shared_bytes = MlaLayout<Row, Tile>::kBytes,
  };
  if (plan.shared_bytes > shared_bytes) {
    return;
  }
  const bool fewer_passes = plan.n_passes < best.n_passes;
  const bool less_padding =
      plan.n_passes == best.n_passes && plan.heads_per_block < best.heads_per_block;
  if (best.n_passes == 0 || fewer_passes || less_padding) {
    best = plan;
  }
}

template <typename Row, typename... Tiles>
MlaDecodePlan best_tile(MlaTiles<Tiles...>, int n_heads, std::int64_t shared_bytes) {
  MlaDecodePlan best;
  (consider<Row, Tiles>(n_heads, shared_bytes, best), ...);
  if (best.n_passes == 0) {
    throw UnsupportedShape("MLA decode on tensor cores needs more shared memory than the " +
                           std::to_string(shared_bytes) + " bytes of this device");
  }
  return best;
}

/// Runs of tokens per sequence: the number that ends soonest when every slot (blocks that run side
/// by side) takes equal time per token, plus two tiles of start-up per run.
int choose_splits(const MlaDecodePlan& plan,
                  int n_sequences,
                  int longest_sequence_tokens,
                  const DeviceInfo& device) {
  constexpr std::int64_t kMaxBlocksPerMultiprocessor = 2;  // 128 threads of up to 255 registers
  constexpr std::int64_t kReservedSharedBytes = 1024;      // of every block, by CUDA
  const std::int64_t blocks_per_multiprocessor =
      std::clamp((device.shared_bytes_per_block + kReservedSharedBytes) /
                     (plan.shared_bytes + kReservedSharedBytes),
                 std::int64_t{1},
                 kMaxBlocksPerMultiprocessor);
  const std::int64_t slots = std::max(1, device.n_multiprocessors) * blocks_per_multiprocessor;
  const std::int64_t blocks = std::max<std::int64_t>(1, n_sequences) * plan.n_passes;
  const std::int64_t n_tiles = std::max(1, ceil_divide(longest_sequence_tokens, plan.tile_tokens));
  const std::int64_t most = std::min(n_tiles, std::max<std::int64_t>(1, 2 * slots / blocks));
  std::int64_t best = 1;
  std::int64_t best_time = 0;
  for (std::int64_t splits = 1; splits <= most; ++splits) {
    const std::int64_t waves = (blocks * splits + slots - 1) / slots;
    const std::int64_t time = waves * ((n_tiles + splits - 1) / splits + 2);
    if (splits == 1 || time < best_time) {
      best = splits;
      best_time = time;
    }
  }
  return static_cast<int>(best);
}

}  // namespace

MlaDecodePlan mla_decode_plan(const MlaDecodeParams& params,
                              int longest_sequence_tokens,
                              const DeviceInfo& device,
                              MlaDecodeKernel kernel) {
  constexpr int kFirstWithBf16TensorCores = 80;
  const bool has_tensor_cores = device.compute_capability >= kFirstWithBf16TensorCores;
  if (kernel == MlaDecodeKernel::automatic) {
    kernel = has_tensor_cores ? MlaDecodeKernel::tensor_cores : MlaDecodeKernel::cuda_cores;
  }
  if (kernel == MlaDecodeKernel::tensor_cores && !has_tensor_cores) {
    throw UnsupportedShape("MLA decode on tensor cores needs bf16 ones: compute capability 8.0");
  }
  if (params.n_heads <= 0) {
    throw UnsupportedShape("MLA decode of " + std::to_string(params.n_heads) + " heads");
  }
  MlaDecodePlan plan;
  dispatch_mla_row(params, [&]<typename Row>(Row) {
    if (kernel == MlaDecodeKernel::cuda_cores) {
      plan = MlaDecodePlan{
          .kernel = kernel,
          .heads_per_block = kMlaCoreHeads,
          .tile_tokens = kMlaWarps * kMlaCoreTokensPerWarp,
          .stages = 0,
          .n_passes = ceil_divide(params.n_heads, kMlaCoreHeads),
          .shared_bytes = kMlaCoreSharedBytes<Row>,
      };
    } else {
      plan = best_tile<Row>(
          typename MlaTilesOf<Row>::Type{}, params.n_heads, device.shared_bytes_per_block);
    }
  });
  plan.n_splits = choose_splits(plan, params.cache.n_sequences, longest_sequence_tokens, device);
  return plan;
}

std::int64_t mla_decode_scratch_bytes(const MlaDecodeParams& params, int n_splits) {
  const std::int64_t n_rows = static_cast<std::int64_t>(params.cache.n_sequences) * params.n_heads;
  return n_rows * n_splits * (params.kv_lora_rank + 2) * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace kvfathom::kernels
