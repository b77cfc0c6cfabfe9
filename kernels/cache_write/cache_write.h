// Cache write: RoPE on new K rows, then K rows and, if there are any, V rows quantised and stored,
// contiguous or paged. Its inverse, `dequantise`, reads a cache back as float.
#pragma once

#include <cstdint>

#include "kernels/common/device.h"
#include "kernels/common/element.h"
#include "kernels/common/kv_cache.h"
#include "kernels/common/rope.h"

namespace kvfathom::kernels {

/// Shapes and buffers of one call; buffers live where the callee runs.
struct CacheWriteParams {
  int n_tokens = 0;  ///< new tokens, of any mix of sequences; no two for the same slot
  int head_dim = 0;
  /// Written through, though its pointers are const: they must be to writable memory. Lengths are
  /// neither read nor changed. The scales of an fp8_e4m3 cache are read.
  KvCacheView cache;
  Rope rope = {};  ///< of K
  Element element = Element::bf16;
  const void* k = nullptr;  ///< [n_tokens, n_kv_heads, head_dim] of `element`
  /// [n_tokens, n_kv_heads, head_dim] of `element`; null: the cache holds K alone.
  const void* v = nullptr;
  const std::int32_t* sequences = nullptr;  ///< [n_tokens]; below 0: a padding row, not written
  const std::int32_t* slots = nullptr;      ///< [n_tokens] index among the sequence's cached tokens
  const std::int32_t* positions = nullptr;  ///< [n_tokens] for RoPE; unused without
};

/// The rows before they are quantised, in double: [n_tokens, n_kv_heads, head_dim].
struct CacheWriteReference {
  double* rotated_k = nullptr;
  double* rotated_k_magnitude = nullptr;  ///< |x| + |y| of the pair, for its bound
};

/// The longest row that a launch stages in shared memory.
inline constexpr int kLargestRow = 1024;
/// Throws UnsupportedShape, saying what is wrong; the CPU version and the launch both ask.
void check_cache_write(const CacheWriteParams& params);

/// The definition of the rotation, in double, on host buffers. What is stored of a row is
/// encode_row's business (kv_format.h).
void cache_write_reference(const CacheWriteParams& params, const CacheWriteReference& result);
/// The same on the CPU, into the cache; n_threads threads (0: all). Throws UnsupportedShape.
void cache_write_cpu(const CacheWriteParams& params, int n_threads = 0);
/// The same on the device. Throws NoDevice, DeviceError or UnsupportedShape.
void cache_write_launch(const CacheWriteParams& params, Stream stream = nullptr);

struct DequantiseParams {
  int head_dim = 0;  ///< a multiple of 8
  KvCacheView cache;
  int max_tokens = 0;  ///< no sequence is longer
  /// [n_sequences, n_kv_heads, max_tokens, head_dim]; rows from a sequence's length on stay as
  /// they are.
  float* k = nullptr;
  float* v = nullptr;
};

void check_dequantise(const DequantiseParams& params);
void dequantise_cpu(const DequantiseParams& params, int n_threads = 0);
void dequantise_launch(const DequantiseParams& params, Stream stream = nullptr);

}  // namespace kvfathom::kernels
