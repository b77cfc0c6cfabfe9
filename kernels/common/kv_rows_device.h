// Rows of a cache in device code, on the vocabulary of simt.h. For .cu files only.
//
// The format is a run-time value here: for kernels whose speed does not hang on unpacking.
#pragma once

#include "kernels/common/element.h"
#include "kernels/common/kv_cache.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {

/// Element i of an activation array.
SIMT_DEVICE float load_element(Element element, const void* array, std::int64_t i) {
  if (element == Element::f32) {
    return simt::ld(static_cast<const float*>(array) + i);
  }
  const std::uint16_t bits = simt::ld(static_cast<const std::uint16_t*>(array) + i);
  return element == Element::f16 ? to_f32(F16{bits}) : to_f32(Bf16{bits});
}

/// One stored row.
struct DeviceRow {
  const std::byte* data;
  const std::byte* scales;
  float head_scale;  ///< of fp8_e4m3
};
SIMT_DEVICE float device_head_scale(const KvCacheView& cache, const KvPlane& plane, int kv_head) {
  // One number per head, read as an index is: not part of the traffic.
  return cache.format == KvFormat::fp8_e4m3
             ? simt::ld_index(reinterpret_cast<const float*>(plane.scales) + kv_head)
             : 1.0F;
}
SIMT_DEVICE KvSlot device_slot_of(const KvCacheView& cache, int sequence, int token) {
  if (cache.page_table == nullptr) {
    return KvSlot{sequence, token};
  }
  const std::int64_t page = static_cast<std::int64_t>(sequence) * cache.pages_per_sequence +
                            (token >> cache.log2_page_tokens);
  return KvSlot{simt::ld_index(cache.page_table + page),
                token & ((1 << cache.log2_page_tokens) - 1)};
}
SIMT_DEVICE int device_length_of(const KvCacheView& cache, int sequence, int kv_head) {
  return simt::ld_index(
      cache.lengths + (cache.lengths_per_head ? sequence * cache.n_kv_heads + kv_head : sequence));
}
SIMT_DEVICE DeviceRow device_row(const KvCacheView& cache,
                                 const KvPlane& plane,
                                 KvSlot at,
                                 int kv_head) {
  return DeviceRow{row_data(plane, at, kv_head),
                   row_scales(plane, at, kv_head),
                   device_head_scale(cache, plane, kv_head)};
}

SIMT_DEVICE float signed_byte(std::uint32_t word, int i) {
  return static_cast<float>(static_cast<std::int8_t>(word >> 8 * i));
}
SIMT_DEVICE float scale_f16(const std::byte* scales, int block) {
  const std::uint16_t bits = simt::ld(reinterpret_cast<const std::uint16_t*>(scales) + block);
  return to_f32(F16{bits});
}

/// Elements first .. first + 3 of a row as decode_row gives them, each rounded to float; `first`
/// is a multiple of 4.
SIMT_DEVICE void load_row4(KvFormat format, const DeviceRow& row, int first, float (&out)[4]) {
  if (format == KvFormat::f16 || format == KvFormat::bf16) {
    const auto pair = simt::ld(reinterpret_cast<const simt::U32x2*>(row.data + 2 * first));
    const bool bf16 = format == KvFormat::bf16;
    out[0] = bf16 ? simt::bf16_low(pair.x) : simt::f16_low(pair.x);
    out[1] = bf16 ? simt::bf16_high(pair.x) : simt::f16_high(pair.x);
    out[2] = bf16 ? simt::bf16_low(pair.y) : simt::f16_low(pair.y);
    out[3] = bf16 ? simt::bf16_high(pair.y) : simt::f16_high(pair.y);
    return;
  }
  if (format == KvFormat::q4_0) {
    const int block = first / kQuantBlock;
    const int at = first % kQuantBlock;
    const int shift = at < kQuantBlock / 2 ? 0 : 4;
    const int offset = block * kQuantBlock / 2 + at % (kQuantBlock / 2);
    const std::uint32_t word = simt::ld(reinterpret_cast<const std::uint32_t*>(row.data + offset));
    const float scale = scale_f16(row.scales, block);
    SIMT_UNROLL for (int i = 0; i < 4; ++i) {
      out[i] = static_cast<float>(static_cast<int>(word >> (8 * i + shift) & 0xfU) - 8) * scale;
    }
    return;
  }
  const std::uint32_t word = simt::ld(reinterpret_cast<const std::uint32_t*>(row.data + first));
  if (format == KvFormat::fp8_e4m3) {
    SIMT_UNROLL for (int i = 0; i < 4; ++i) {
      out[i] = to_f32(Fp8E4m3{static_cast<std::uint8_t>(word >> 8 * i)}) * row.head_scale;
    }
    return;
  }
  const float scale = format == KvFormat::q8_0
                          ? scale_f16(row.scales, first / kQuantBlock)
                          : simt::ld(reinterpret_cast<const float*>(row.scales));
  SIMT_UNROLL for (int i = 0; i < 4; ++i) {
    out[i] = signed_byte(word, i) * scale;
  }
}

}  // namespace kvfathom::kernels
