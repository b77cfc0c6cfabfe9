// Eight activations at a time in device code, of any element type. For kernels only.
#pragma once

#include <cstdint>

#include "kernels/common/element.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {

/// Elements [i, i + 8) of an array whose rows start on 16-byte boundaries; i is a multiple of 8.
SIMT_DEVICE void load8(Element element, const void* array, std::int64_t i, float (&out)[8]) {
  if (element == Element::f32) {
    SIMT_UNROLL for (int part = 0; part < 2; ++part) {
      const auto words = simt::ld(
          reinterpret_cast<const simt::U32x4*>(static_cast<const float*>(array) + i + 4 * part));
      out[4 * part] = f32_of_bits(words.x);
      out[4 * part + 1] = f32_of_bits(words.y);
      out[4 * part + 2] = f32_of_bits(words.z);
      out[4 * part + 3] = f32_of_bits(words.w);
    }
    return;
  }
  const auto words =
      simt::ld(reinterpret_cast<const simt::U32x4*>(static_cast<const std::uint16_t*>(array) + i));
  const std::uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
  SIMT_UNROLL for (int pair = 0; pair < 4; ++pair) {
    const bool bf16 = element == Element::bf16;
    out[2 * pair] = bf16 ? simt::bf16_low(pairs[pair]) : simt::f16_low(pairs[pair]);
    out[2 * pair + 1] = bf16 ? simt::bf16_high(pairs[pair]) : simt::f16_high(pairs[pair]);
  }
}

SIMT_DEVICE void store8(Element element, void* array, std::int64_t i, const float (&values)[8]) {
  if (element == Element::f32) {
    SIMT_UNROLL for (int part = 0; part < 2; ++part) {
      simt::st(reinterpret_cast<simt::U32x4*>(static_cast<float*>(array) + i + 4 * part),
               simt::U32x4{bits_of_f32(values[4 * part]),
                           bits_of_f32(values[4 * part + 1]),
                           bits_of_f32(values[4 * part + 2]),
                           bits_of_f32(values[4 * part + 3])});
    }
    return;
  }
  std::uint32_t pairs[4];
  SIMT_UNROLL for (int pair = 0; pair < 4; ++pair) {
    pairs[pair] = element == Element::bf16 ? simt::pack_bf16(values[2 * pair], values[2 * pair + 1])
                                           : simt::pack_f16(values[2 * pair], values[2 * pair + 1]);
  }
  simt::st(reinterpret_cast<simt::U32x4*>(static_cast<std::uint16_t*>(array) + i),
           simt::U32x4{pairs[0], pairs[1], pairs[2], pairs[3]});
}

/// A value as it reads after it was stored.
SIMT_DEVICE float rounded_to(Element element, float value) {
  return element == Element::f32   ? value
         : element == Element::f16 ? to_f32(to_f16(value))
                                   : to_f32(to_bf16(value));
}

}  // namespace kvfathom::kernels
