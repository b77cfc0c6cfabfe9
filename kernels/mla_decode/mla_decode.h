// Absorbed decode of multi-head latent attention: every query head against one cached row a token.
//
// A cached row is [latent | rotary key] (DeepSeek-V2; 512 + 64 in DeepSeek-V3 and GLM-4.7-Flash).
// Scores use all of it; V is the latent, a view of K. The projections that absorb W_UK and apply
// W_UV are GEMMs outside. Split-KV as in decode_attention.h.
#pragma once

#include <cstdint>

#include "kernels/common/device.h"
#include "kernels/common/kv_cache.h"

namespace kvfathom::kernels {

/// Shapes and buffers of one call; buffers live where the callee runs.
struct MlaDecodeParams {
  int n_heads = 0;           ///< query heads, any number; all read the same rows
  int kv_lora_rank = 0;      ///< width of the latent, so of V and of the output
  int qk_rope_head_dim = 0;  ///< width of the rotary key
  /// One KV head. Format bf16: rows of kv_lora_rank + qk_rope_head_dim. Format fp8_e4m3: the rows
  /// of mla_fp8_row.h. `v.data` null: V is the first kv_lora_rank columns of the K row. Otherwise
  /// V is read from its own bf16 rows, as engines did that stored it twice.
  KvCacheView cache;
  /// [n_sequences, n_heads, kv_lora_rank + qk_rope_head_dim] Bf16, W_UK absorbed.
  const std::uint16_t* q = nullptr;
  float softmax_scale = 1.0F;
  float* out = nullptr;  ///< [n_sequences, n_heads, kv_lora_rank]; zeros for an empty sequence
};

/// Where the reference puts its results: the outputs, and the magnitudes their bounds need
/// (tolerance.h), each [n_sequences, n_heads, kv_lora_rank] but for the score's
/// [n_sequences, n_heads].
struct MlaDecodeReference {
  double* out = nullptr;
  double* weighted_abs_v = nullptr;
  double* largest_abs_score = nullptr;
};

/// The definition, in double, on host buffers. `params.out` is not touched.
void mla_decode_reference(const MlaDecodeParams& params, const MlaDecodeReference& result);

/// The same on the CPU: vectorised, n_threads threads (0: all). Throws UnsupportedShape.
void mla_decode_cpu(const MlaDecodeParams& params, int n_threads = 0);

/// Which implementation a launch uses. `automatic` takes the tensor cores where the device has
/// bf16 ones (sm_80); the CUDA-core kernel is the fallback and the second implementation.
enum class MlaDecodeKernel : std::uint8_t { automatic, cuda_cores, tensor_cores };

/// How a launch is cut; mla_decode_plan chooses, tests and benchmarks may choose otherwise.
struct MlaDecodePlan {
  MlaDecodeKernel kernel = MlaDecodeKernel::tensor_cores;
  int heads_per_block = 0;
  int tile_tokens = 0;
  int stages = 0;    ///< tiles in the ring of asynchronous copies; 0 for cuda_cores
  int n_passes = 0;  ///< blocks that read the same rows, for different heads
  int n_splits = 0;  ///< runs of tokens per sequence
  std::int64_t shared_bytes = 0;
};

/// The launch rule: as many heads per block as fit its shared memory, since each group of heads
/// reads the whole cache again; then the largest tile; then as many runs as fill the device.
/// Throws UnsupportedShape where `kernel` has no variant for the shape or the device.
[[nodiscard]] MlaDecodePlan mla_decode_plan(const MlaDecodeParams& params,
                                            int longest_sequence_tokens,
                                            const DeviceInfo& device,
                                            MlaDecodeKernel kernel = MlaDecodeKernel::automatic);
/// Bytes of scratch memory that a launch with `n_splits` needs.
[[nodiscard]] std::int64_t mla_decode_scratch_bytes(const MlaDecodeParams& params, int n_splits);
/// The same on the device. Throws NoDevice, DeviceError, or UnsupportedShape.
void mla_decode_launch(const MlaDecodeParams& params,
                       const MlaDecodePlan& plan,
                       void* scratch,
                       Stream stream);

}  // namespace kvfathom::kernels
