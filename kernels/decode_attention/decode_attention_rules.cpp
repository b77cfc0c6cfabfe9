// The launch rules of decode attention: host code, so that plans can ask them without CUDA.
#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/common/error.h"
#include "kernels/decode_attention/decode_attention.h"

namespace kvfathom::kernels {
namespace {

std::int64_t divide_up(std::int64_t n, std::int64_t by) {
  return (n + by - 1) / by;
}

}  // namespace

DecodeKernel decode_attention_kernel(const DecodeAttentionParams& params,
                                     DecodeKernel kernel,
                                     const DeviceInfo& device) {
  // bf16 operands came with sm_80; all other formats are multiplied in f16, which sm_75 has.
  const int needed = params.cache.format == KvFormat::bf16 ? 80 : 75;
  const bool has_tensor_cores = device.compute_capability >= needed;
  if (kernel == DecodeKernel::tensor_cores && !has_tensor_cores) {
    throw UnsupportedShape("decode_attention: " + device.name + " has no tensor cores for " +
                           std::string(name(params.cache.format)));
  }
  if (kernel != DecodeKernel::automatic) {
    return kernel;
  }
  return has_tensor_cores ? DecodeKernel::tensor_cores : DecodeKernel::cuda_cores;
}

int decode_attention_heads_per_pass(DecodeKernel kernel) {
  return kernel == DecodeKernel::tensor_cores ? 16 : 4;
}

int decode_attention_splits(const DecodeAttentionParams& params,
                            int longest_sequence_tokens,
                            const DeviceInfo& device,
                            DecodeKernel kernel) {
  // Of 128 threads and at most 255 registers each, two blocks fit any multiprocessor.
  constexpr std::int64_t kBlocksPerMultiprocessor = 2;
  // Each of a block's four warps should see a few tiles of 16 tokens.
  constexpr std::int64_t kShortestRun = 128;
  // What starting a block, merging its warps and storing its state costs, in tokens read.
  constexpr std::int64_t kBlockOverheadTokens = 64;
  constexpr std::int64_t kMostSplits = 256;

  std::int64_t tokens = longest_sequence_tokens;
  if (params.window_tokens > 0) {
    tokens =
        std::min<std::int64_t>(tokens, std::int64_t{params.window_tokens} + params.sink_tokens);
  }
  const int heads_per_pass =
      decode_attention_heads_per_pass(decode_attention_kernel(params, kernel, device));
  const std::int64_t passes = divide_up(params.n_heads / params.cache.n_kv_heads, heads_per_pass);
  const std::int64_t blocks =
      std::int64_t{params.cache.n_sequences} * params.cache.n_kv_heads * passes;
  const std::int64_t slots = kBlocksPerMultiprocessor * device.n_multiprocessors;
  const std::int64_t most = std::clamp(tokens / kShortestRun, std::int64_t{1}, kMostSplits);

  int best = 1;
  std::int64_t best_time = std::numeric_limits<std::int64_t>::max();
  for (int splits = 1; splits <= most; ++splits) {
    const std::int64_t waves = divide_up(blocks * splits, slots);
    const std::int64_t time = waves * (divide_up(tokens, splits) + kBlockOverheadTokens);
    if (time < best_time) {
      best = splits;
      best_time = time;
    }
  }
  return best;
}

std::int64_t decode_attention_scratch_bytes(const DecodeAttentionParams& params, int n_splits) {
  if (n_splits == 1) {
    return 0;
  }
  const std::int64_t n_rows = std::int64_t{params.cache.n_sequences} * params.n_heads;
  return n_rows * n_splits * (params.head_dim + 2) * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace kvfathom::kernels
