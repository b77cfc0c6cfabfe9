// Where a token's K and V lie: contiguous or paged, one length per sequence or per KV head.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/kv_format.h"

namespace kvfathom::kernels {

/// The K or the V of all sequences. Strides are in bytes; data rows start on 16-byte boundaries.
struct KvPlane {
  const std::byte* data = nullptr;
  std::int64_t page_stride_bytes = 0;
  std::int64_t head_stride_bytes = 0;
  std::int64_t token_stride_bytes = 0;

  /// q8_0, q4_0: F16 [n / 32] a row. int8_token: one float a row. fp8_e4m3: float [n_kv_heads], the
  /// strides unused. Null otherwise.
  const std::byte* scales = nullptr;
  std::int64_t scale_page_stride_bytes = 0;
  std::int64_t scale_head_stride_bytes = 0;
  std::int64_t scale_token_stride_bytes = 0;
};

/// A view of one layer's cache. Pointers live where the callee runs.
struct KvCacheView {
  KvFormat format = KvFormat::f16;  ///< of both planes
  int n_sequences = 0;
  int n_kv_heads = 0;
  KvPlane k;
  KvPlane v;
  /// [n_sequences, pages_per_sequence] page of each run of `page_tokens` tokens; null: contiguous,
  /// page s is sequence s.
  const std::int32_t* page_table = nullptr;
  int pages_per_sequence = 0;
  int log2_page_tokens = 0;  ///< pages hold a power of two of tokens; unused when contiguous
  /// [n_sequences], or [n_sequences, n_kv_heads] where lengths differ by head (after an eviction).
  const std::int32_t* lengths = nullptr;
  bool lengths_per_head = false;
};

/// Cached tokens of one sequence and KV head.
KVFATHOM_HD int length_of(const KvCacheView& cache, int sequence, int kv_head) {
  return cache.lengths[cache.lengths_per_head ? sequence * cache.n_kv_heads + kv_head : sequence];
}

/// Page and slot of a token.
struct KvSlot {
  std::int64_t page;
  std::int64_t slot;
};
KVFATHOM_HD KvSlot slot_of(const KvCacheView& cache, int sequence, int token) {
  if (cache.page_table == nullptr) {
    return KvSlot{sequence, token};
  }
  const std::int32_t* table =
      cache.page_table + static_cast<std::int64_t>(sequence) * cache.pages_per_sequence;
  return KvSlot{table[token >> cache.log2_page_tokens],
                token & ((1 << cache.log2_page_tokens) - 1)};
}

/// The data of one row.
KVFATHOM_HD const std::byte* row_data(const KvPlane& plane, KvSlot at, int kv_head) {
  return plane.data + at.page * plane.page_stride_bytes + kv_head * plane.head_stride_bytes +
         at.slot * plane.token_stride_bytes;
}
/// The scales of one row (not for fp8_e4m3, whose scale is per head).
KVFATHOM_HD const std::byte* row_scales(const KvPlane& plane, KvSlot at, int kv_head) {
  return plane.scales + at.page * plane.scale_page_stride_bytes +
         kv_head * plane.scale_head_stride_bytes + at.slot * plane.scale_token_stride_bytes;
}

}  // namespace kvfathom::kernels
