// Stored weights to numbers inside kernels: eight elements at a time, from global memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/weight_format.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {

/// A 16-bit field of a block; blocks start on even addresses.
SIMT_DEVICE std::uint16_t load_u16(const std::byte* at) {
  return simt::ld(reinterpret_cast<const std::uint16_t*>(at));
}
SIMT_DEVICE std::uint32_t load_u8(const std::byte* at) {
  return simt::ld(reinterpret_cast<const std::uint8_t*>(at));
}
SIMT_DEVICE float load_f16(const std::byte* at) {
  return to_f32(F16{load_u16(at)});
}

/// The scale and minimum of sub-block j of a q4_K block, from its twelve packed bytes.
struct SubBlockScale {
  std::uint32_t scale, min;
};
template <typename ByteAt>
SIMT_DEVICE SubBlockScale q4_k_scale(int j, const ByteAt& byte_at) {
  if (j < 4) {
    return {byte_at(j) & 63U, byte_at(j + 4) & 63U};
  }
  const std::uint32_t both = byte_at(j + 4);
  return {(both & 15U) | byte_at(j - 4) >> 6 << 4, both >> 4 | byte_at(j) >> 6 << 4};
}

/// Elements [k, k + 8) of a stored row; k is a multiple of 8.
template <WeightFormat kFormat>
SIMT_DEVICE void decode8(const std::byte* row, int k, float (&values)[8]) {
  if constexpr (!is_quantised(kFormat)) {
    const auto words = simt::ld_stream<simt::U32x4>(row + 2 * static_cast<std::int64_t>(k));
    const std::uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
    SIMT_UNROLL for (int i = 0; i < 8; ++i) {
      const auto bits = static_cast<std::uint16_t>(pairs[i / 2] >> 16 * (i % 2));
      values[i] = activation_to_f32(kFormat, bits);
    }
    return;
  }
  constexpr WeightBlock kBlock = block_of(kFormat);
  const std::byte* block = row + static_cast<std::int64_t>(k / kBlock.elements) * kBlock.bytes;
  const int within = k % kBlock.elements;
  float scale = load_f16(block);
  float offset = 0.0F;
  const std::byte* packed = block + 2 + within;
  int shift = 0;
  if constexpr (kFormat == WeightFormat::q4_0) {
    packed = block + 2 + within % 16;
    shift = within / 16 * 4;
    offset = 8.0F * scale;
  } else if constexpr (kFormat == WeightFormat::q4_k) {
    const SubBlockScale s = q4_k_scale(within / 32, [&](int i) { return load_u8(block + 4 + i); });
    offset = load_f16(block + 2) * static_cast<float>(s.min);
    scale *= static_cast<float>(s.scale);
    packed = block + 16 + within / 64 * 32 + within % 32;
    shift = within / 32 % 2 * 4;
  }
  SIMT_UNROLL for (int i = 0; i < 8; i += 2) {
    const std::uint32_t both = load_u16(packed + i);
    SIMT_UNROLL for (int odd = 0; odd < 2; ++odd) {
      const std::uint32_t byte = both >> 8 * odd & 0xffU;
      if constexpr (kFormat == WeightFormat::q8_0) {
        values[i + odd] = scale * static_cast<float>(static_cast<std::int8_t>(byte));
      } else {
        values[i + odd] = scale * static_cast<float>(byte >> shift & 15U) - offset;
      }
    }
  }
}

/// Rows of quantised weights as an operand of TileGemm: decoded to f16 on the way to shared memory.
template <WeightFormat kFormat>
struct QuantisedRows {
  const std::byte* first = nullptr;
  std::int64_t row_bytes = 0;
  int n_rows = 0;  ///< what lies beyond reads as zeros
  int n_columns = 0;

  SIMT_DEVICE void copy8(void* shared, int row, int column) const {
    simt::U32x4 words{0, 0, 0, 0};
    if (row < n_rows && column < n_columns) {
      float v[8];
      decode8<kFormat>(first + row * row_bytes, column, v);
      words = {simt::pack_f16(v[0], v[1]),
               simt::pack_f16(v[2], v[3]),
               simt::pack_f16(v[4], v[5]),
               simt::pack_f16(v[6], v[7])};
    }
    *static_cast<simt::U32x4*>(shared) = words;
  }
};

}  // namespace kvfathom::kernels
