// What the tensor-core kernel knows of each cache format: which elements a lane's bytes are, and
// how they become the 16-bit operands of a matrix instruction.
#pragma once

#include <cstdint>

#include "kernels/common/kv_format.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels::decode {

/// What a scale belongs to.
enum class Scaling : std::uint8_t { none, block, token, head };

constexpr int bits_per_element(KvFormat format) {
  switch (format) {
    case KvFormat::f16:
    case KvFormat::bf16:
      return 16;
    case KvFormat::q4_0:
      return 4;
    default:
      return 8;
  }
}
constexpr Scaling scaling_of(KvFormat format) {
  switch (format) {
    case KvFormat::q8_0:
    case KvFormat::q4_0:
      return Scaling::block;
    case KvFormat::int8_token:
      return Scaling::token;
    case KvFormat::fp8_e4m3:
      return Scaling::head;
    default:
      return Scaling::none;
  }
}

/// The element at a byte of a row. A byte of q4_0 holds two: part 0 and part 1, 16 further on.
constexpr int element_at(KvFormat format, int row_byte, int part) {
  switch (bits_per_element(format)) {
    case 16:
      return row_byte / 2;
    case 4:
      return row_byte / 16 * kQuantBlock + row_byte % 16 + 16 * part;
    default:
      return row_byte;
  }
}

template <KvFormat kFormat>
struct TensorFormat {
  static constexpr int kBits = bits_per_element(kFormat);
  static constexpr Scaling kScaling = scaling_of(kFormat);

  /// A k-step of the scores takes four elements of every lane's share of a K row; here they begin.
  static constexpr int step_byte(int step) {
    return kBits == 16 ? 8 * step : kBits == 8 ? 4 * step : step / 2 * 4;
  }
  /// An output tile takes one column of every lane's share of a V row.
  static constexpr int tile_byte(int tile) { return tile * kBits / 8; }
  static constexpr int part(int step_or_tile) { return kBits == 4 ? step_or_tile % 2 : 0; }

  SIMT_DEVICE static void mma(float (&d)[4],
                              const std::uint32_t (&a)[4],
                              const std::uint32_t (&b)[2]) {
    if constexpr (kFormat == KvFormat::bf16) {
      simt::mma_bf16(d, a, b);
    } else {
      simt::mma_f16(d, a, b);
    }
  }
  SIMT_DEVICE static std::uint32_t pack(float low, float high) {
    if constexpr (kFormat == KvFormat::bf16) {
      return simt::pack_bf16(low, high);
    } else {
      return simt::pack_f16(low, high);
    }
  }

  /// The four elements of a k-step, without their scale.
  template <int kWords>
  SIMT_DEVICE static void key_operand(const std::uint32_t (&words)[kWords],
                                      int step,
                                      std::uint32_t (&b)[2]) {
    const std::uint32_t word = words[step_byte(step) / 4];
    if constexpr (kBits == 16) {
      b[0] = word;
      b[1] = words[step_byte(step) / 4 + 1];
    } else if constexpr (kFormat == KvFormat::fp8_e4m3) {
      b[0] = simt::f16x2_of_e4m3x2(word);
      b[1] = simt::f16x2_of_e4m3x2(word >> 16);
    } else {
      const std::uint32_t numbers = unsigned_bytes(word, part(step));
      b[0] = f16_pair(numbers, kLowPair);
      b[1] = f16_pair(numbers, kHighPair);
    }
  }

  /// One column of two tokens, without their scales.
  template <int kWords>
  SIMT_DEVICE static std::uint32_t value_pair(const std::uint32_t (&first)[kWords],
                                              const std::uint32_t (&second)[kWords],
                                              int tile) {
    const int byte = tile_byte(tile);
    const std::uint32_t a = first[byte / 4];
    const std::uint32_t b = second[byte / 4];
    if constexpr (kBits == 16) {
      return simt::permute_bytes(a, b, byte % 4 == 0 ? 0x5410U : 0x7632U);
    } else {  // bytes of both, interleaved; two tiles share the permutation
      const std::uint32_t interleaved = simt::permute_bytes(a, b, byte % 4 < 2 ? 0x5140U : 0x7362U);
      if constexpr (kFormat == KvFormat::fp8_e4m3) {
        return simt::f16x2_of_e4m3x2(byte % 2 == 0 ? interleaved : interleaved >> 16);
      } else {
        return f16_pair(unsigned_bytes(interleaved, part(tile)),
                        byte % 2 == 0 ? kLowPair : kHighPair);
      }
    }
  }

 private:
  // An unsigned byte n as the low half of 0x6400 is the binary16 number 1024 + n, exactly.
  static constexpr std::uint32_t kUpperHalves = 0x64646464U;
  static constexpr std::uint32_t kLowPair = 0x4140U;
  static constexpr std::uint32_t kHighPair = 0x4342U;
  static constexpr std::uint32_t kBias = kBits == 4 ? 0x64086408U : 0x64806480U;  // 1032, 1152

  /// Elements plus 8 (q4_0) or 128.
  SIMT_DEVICE static std::uint32_t unsigned_bytes(std::uint32_t word, int half) {
    return kBits == 4 ? word >> 4 * half & 0x0f0f0f0fU : word ^ 0x80808080U;
  }
  SIMT_DEVICE static std::uint32_t f16_pair(std::uint32_t numbers, std::uint32_t selector) {
    return simt::sub_f16x2(simt::permute_bytes(numbers, kUpperHalves, selector), kBias);
  }
};

}  // namespace kvfathom::kernels::decode
