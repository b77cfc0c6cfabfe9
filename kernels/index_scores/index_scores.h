// DeepSeek Sparse Attention's lightning indexer (DeepSeek-V3.2-Exp): which cached tokens a decode
// step attends to.
//
//   score_s = sum_j w_j ReLU(q_j . k_s) scale_s      (64 heads j of width 128, one key a token)
//
// The tokens of the 2048 highest scores are then select_tokens' to find (eviction_scores/).
#pragma once

#include <cstdint>

#include "kernels/common/device.h"
#include "kernels/common/kv_cache.h"

namespace kvfathom::kernels {

/// Shapes and buffers of one call; buffers live where the callee runs.
struct IndexScoresParams {
  int n_heads = 64;
  int head_dim = 128;  ///< a multiple of 32, at most 256
  /// keys.k holds rows of head_dim E4M3 and one float of scale a row (132 bytes a token for 128),
  /// laid out as int8_token's are; n_kv_heads is 1, format and v are unused.
  KvCacheView keys = {};
  const Fp8E4m3* q = nullptr;      ///< [n_sequences, n_heads, head_dim], 16-byte aligned
  const float* weights = nullptr;  ///< [n_sequences, n_heads], q's scale multiplied in
  int max_tokens = 0;              ///< no sequence is longer
  float* scores = nullptr;  ///< [n_sequences, max_tokens]; from a sequence's length on, untouched
};

/// Both [n_sequences, max_tokens]; the magnitude is the sum of absolute products, for the bound.
struct IndexScoresReference {
  double* scores = nullptr;
  double* magnitudes = nullptr;
};

/// `automatic` takes the tensor cores where n_heads is 16, 32 or 64 and head_dim 128 (E4M3 is exact
/// in their f16); the CUDA-core kernel is the fallback and the second implementation.
enum class IndexKernel : std::uint8_t { automatic, cuda_cores, tensor_cores };

/// Throws UnsupportedShape, saying what is wrong.
void check_index_scores(const IndexScoresParams& params);
/// The definition, in double, on host buffers.
void index_scores_reference(const IndexScoresParams& params, const IndexScoresReference& result);
/// The same on the CPU; n_threads threads (0: all).
void index_scores_cpu(const IndexScoresParams& params, int n_threads = 0);
/// The same on the device. Throws NoDevice, DeviceError or UnsupportedShape.
void index_scores_launch(const IndexScoresParams& params,
                         Stream stream = nullptr,
                         IndexKernel kernel = IndexKernel::automatic);

}  // namespace kvfathom::kernels
