// Prefill attention: a chunk of new tokens per sequence against all tokens cached so far.
//
// Causal softmax(q k^T scale) v for multi-head, grouped-query and multi-query attention. The new
// tokens' K and V are in the cache already, at its end: a whole prompt is a chunk as long as the
// cache, a chunk of a long prompt is shorter. FlashAttention-2 (Dao 2023).
#pragma once

#include <cstdint>

#include "kernels/common/device.h"
#include "kernels/common/kv_cache.h"

namespace kvfathom::kernels {

/// Shapes and buffers of one call; buffers live where the callee runs. Query i of a sequence with
/// n new and L cached tokens stands at position L - n + i and sees the tokens up to itself.
struct PrefillAttentionParams {
  int n_heads = 0;    ///< query heads, a multiple of cache.n_kv_heads
  int head_dim = 0;   ///< of queries, keys and values: 64, 80, 96, 128, 192 or 256
  KvCacheView cache;  ///< f16 or bf16, one length per sequence, the new tokens included
  /// [n_query_tokens, n_heads, head_dim] in the cache's format, sequence after sequence.
  const std::uint16_t* q = nullptr;
  const std::int32_t* query_offsets = nullptr;  ///< [n_sequences + 1] first row of each sequence
  int longest_query_tokens = 0;                 ///< of one sequence
  float softmax_scale = 1.0F;                   ///< positive
  int window_tokens = 0;  ///< a query sees the newest `window_tokens` up to itself; 0: all
  /// [n_query_tokens, n_heads, head_dim] in the cache's format; zeros where no token is seen.
  std::uint16_t* out = nullptr;
};

/// Where the reference puts its results: the outputs, and the magnitudes their bounds need
/// (tolerance.h), each [n_query_tokens, n_heads, head_dim] but for the score's
/// [n_query_tokens, n_heads].
struct PrefillAttentionReference {
  double* out = nullptr;
  double* weighted_abs_v = nullptr;
  double* largest_abs_score = nullptr;
};

/// The definition, in double, on host buffers. `params.out` is not touched.
void prefill_attention_reference(const PrefillAttentionParams& params,
                                 const PrefillAttentionReference& result);

/// The same on the CPU: vectorised, n_threads threads (0: all). Throws UnsupportedShape.
void prefill_attention_cpu(const PrefillAttentionParams& params, int n_threads = 0);

/// Which implementation a launch uses. `automatic` takes the tensor cores where the device has
/// them for the format (f16: sm_75, bf16: sm_80) and the shared memory; the CUDA-core kernel is the
/// fallback and the second, independent implementation.
enum class PrefillKernel : std::uint8_t { automatic, cuda_cores, tensor_cores };

/// How a launch is cut. A block owns `query_tile` queries of one head and walks over their tokens
/// in steps of `key_tile`.
struct PrefillAttentionPlan {
  PrefillKernel kernel = PrefillKernel::tensor_cores;
  int query_tile = 0;
  int key_tile = 0;
  std::int64_t shared_bytes = 0;
};

/// The launch rule: the largest tile that fits. Throws UnsupportedShape.
[[nodiscard]] PrefillAttentionPlan prefill_attention_plan(
    const PrefillAttentionParams& params,
    const DeviceInfo& device,
    PrefillKernel kernel = PrefillKernel::automatic);
/// The same on the device. Throws NoDevice, DeviceError, or UnsupportedShape.
void prefill_attention_launch(const PrefillAttentionParams& params,
                              const PrefillAttentionPlan& plan,
                              Stream stream);

}  // namespace kvfathom::kernels
