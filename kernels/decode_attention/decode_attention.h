// Decode attention: one new query token per sequence against its cached keys and values.
//
// softmax(q k^T scale) v for multi-head, grouped-query and multi-query attention. Split-KV flash
// decoding (Dao 2023): each block takes a run of tokens, a second kernel merges the runs. Ragged
// lengths per KV head are decode over an evicted cache.
#pragma once

#include <cstdint>

#include "kernels/common/device.h"
#include "kernels/common/kv_cache.h"

namespace kvfathom::kernels {

/// Shapes and buffers of one call; buffers live where the callee runs.
struct DecodeAttentionParams {
  int n_heads = 0;   ///< query heads, a multiple of cache.n_kv_heads; any ratio
  int head_dim = 0;  ///< of queries, keys and values
  KvCacheView cache;
  /// [n_sequences, n_heads, head_dim]: Bf16 for a bf16 cache, F16 for any other.
  const std::uint16_t* q = nullptr;
  float softmax_scale = 1.0F;
  /// Only the newest `window_tokens` are attended to, and the first `sink_tokens`. 0: all.
  int window_tokens = 0;
  int sink_tokens = 0;
  /// [n_heads] logits that join the softmax's denominator and nothing else (gpt-oss); null: none.
  const float* sink_logits = nullptr;
  float* out = nullptr;  ///< [n_sequences, n_heads, head_dim]; zeros for an empty sequence
};

/// Where the reference puts its results: the outputs, and the magnitudes their bounds need
/// (tolerance.h), each [n_sequences, n_heads, head_dim] but for the score's [n_sequences, n_heads].
struct DecodeAttentionReference {
  double* out = nullptr;
  double* weighted_abs_v = nullptr;
  double* largest_abs_score = nullptr;
  double* total_abs_v = nullptr;  ///< may be null
};

/// The definition, in double, on host buffers. `params.out` is not touched.
void decode_attention_reference(const DecodeAttentionParams& params,
                                const DecodeAttentionReference& result);

/// The same on the CPU: vectorised, n_threads threads (0: all). Throws UnsupportedShape.
void decode_attention_cpu(const DecodeAttentionParams& params, int n_threads = 0);

/// Which implementation a launch uses. `automatic` takes the tensor cores where the device has
/// them for the format; the CUDA-core kernel is the fallback and the second, independent
/// implementation.
enum class DecodeKernel : std::uint8_t { automatic, cuda_cores, tensor_cores };

/// What `automatic` stands for on this device. Throws UnsupportedShape where `kernel` asks for
/// tensor cores that the device has not.
[[nodiscard]] DecodeKernel decode_attention_kernel(const DecodeAttentionParams& params,
                                                   DecodeKernel kernel,
                                                   const DeviceInfo& device);
/// Query heads of one KV head that a block serves with one pass over K and V; more heads take more
/// passes. `kernel`: not automatic.
[[nodiscard]] int decode_attention_heads_per_pass(DecodeKernel kernel);
/// How many runs the launch rule cuts the tokens into on this device: as many as bring the last
/// block to its end soonest, full waves of blocks first of all.
[[nodiscard]] int decode_attention_splits(const DecodeAttentionParams& params,
                                          int longest_sequence_tokens,
                                          const DeviceInfo& device,
                                          DecodeKernel kernel = DecodeKernel::automatic);
/// Bytes of scratch memory that a launch with `n_splits` needs; 0 for one split, which needs no
/// merge.
[[nodiscard]] std::int64_t decode_attention_scratch_bytes(const DecodeAttentionParams& params,
                                                          int n_splits);
/// The same on the device. Throws NoDevice, DeviceError, or UnsupportedShape naming what is built:
/// head sizes 64, 80, 96, 128, 192, 256, with q8_0 and q4_0 not 80. Dequantised values of those two
/// formats must fit binary16.
void decode_attention_launch(const DecodeAttentionParams& params,
                             int n_splits,
                             void* scratch,
                             Stream stream,
                             DecodeKernel kernel = DecodeKernel::automatic);

}  // namespace kvfathom::kernels
