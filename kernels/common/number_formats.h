// The number formats of caches and weights as plain storage, with explicit conversions that give
// the same bits on the host, in the emulator and on the device. Rounding is to nearest, ties to
// even.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#define KVFATHOM_HD __host__ __device__ __forceinline__
#else
#define KVFATHOM_HD inline
#endif

namespace kvfathom::kernels {

/// IEEE binary16.
struct F16 {
  std::uint16_t bits;
};
/// The upper half of a binary32.
struct Bf16 {
  std::uint16_t bits;
};
/// OCP FP8 E4M3 ("fn"): bias 7, largest value 448, one NaN per sign, no infinity.
struct Fp8E4m3 {
  std::uint8_t bits;
};

/// Unit roundoff: half the distance from 1 to the next number. Tolerances are built from these.
inline constexpr double kUnitRoundoffF32 = 0x1p-24;
inline constexpr double kUnitRoundoffF16 = 0x1p-11;
inline constexpr double kUnitRoundoffBf16 = 0x1p-8;
inline constexpr double kUnitRoundoffFp8E4m3 = 0x1p-4;
inline constexpr float kLargestFp8E4m3 = 448.0F;

KVFATHOM_HD float f32_of_bits(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}
KVFATHOM_HD std::uint32_t bits_of_f32(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  return std::bit_cast<std::uint32_t>(value);
#endif
}

KVFATHOM_HD float to_f32(Bf16 value) {
  return f32_of_bits(static_cast<std::uint32_t>(value.bits) << 16);
}
KVFATHOM_HD Bf16 to_bf16(float value) {
  const std::uint32_t bits = bits_of_f32(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) {  // NaN stays NaN: rounding could carry it to infinity
    return Bf16{static_cast<std::uint16_t>(bits >> 16 | 0x40U)};
  }
  return Bf16{static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16)};
}

KVFATHOM_HD float to_f32(F16 value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  const std::uint32_t sign = (value.bits & 0x8000U) << 16;
  const std::uint32_t exponent = value.bits >> 10 & 0x1fU;
  const std::uint32_t mantissa = value.bits & 0x3ffU;
  if (exponent == 0x1f) {
    return f32_of_bits(sign | 0x7f800000U | mantissa << 13);
  }
  if (exponent != 0) {
    return f32_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
  }
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
  return f32_of_bits(sign | bits_of_f32(magnitude));
#endif
}
KVFATHOM_HD F16 to_f16(float value) {
#if defined(__CUDA_ARCH__)
  return F16{__half_as_ushort(__float2half_rn(value))};
#else
  const std::uint32_t bits = bits_of_f32(value);
  const std::uint32_t sign = bits >> 16 & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude >= 0x7f800000U) {  // infinity or NaN
    const std::uint32_t quiet = magnitude > 0x7f800000U ? 0x200U : 0U;
    return F16{static_cast<std::uint16_t>(sign | 0x7c00U | quiet)};
  }
  if (magnitude >= 0x477ff000U) {  // 65520 and above round to infinity
    return F16{static_cast<std::uint16_t>(sign | 0x7c00U)};
  }
  if (magnitude < 0x38800000U) {  // subnormal: adding 0.5 lets the hardware round at 2^-24
    const float shifted = f32_of_bits(magnitude) + 0.5F;
    return F16{static_cast<std::uint16_t>(sign | (bits_of_f32(shifted) - 0x3f000000U))};
  }
  const std::uint32_t rebased = magnitude - 0x38000000U;
  const std::uint32_t rounded = rebased + 0xfffU + (rebased >> 13 & 1U);
  return F16{static_cast<std::uint16_t>(sign | rounded >> 13)};
#endif
}

KVFATHOM_HD float to_f32(Fp8E4m3 value) {
  const std::uint32_t sign = (value.bits & 0x80U) << 24;
  const std::uint32_t exponent = value.bits >> 3 & 0xfU;
  const std::uint32_t mantissa = value.bits & 0x7U;
  if (exponent == 0xf && mantissa == 0x7) {
    return f32_of_bits(sign | 0x7fc00000U);
  }
  if (exponent != 0) {
    return f32_of_bits(sign | (exponent + 120) << 23 | mantissa << 20);
  }
  return f32_of_bits(sign | bits_of_f32(static_cast<float>(mantissa) * 0x1p-9F));
}
/// Saturates: what lies beyond 448, infinity included, becomes 448.
KVFATHOM_HD Fp8E4m3 to_fp8_e4m3(float value) {
  const std::uint32_t bits = bits_of_f32(value);
  const std::uint32_t sign = bits >> 24 & 0x80U;
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) {
    return Fp8E4m3{static_cast<std::uint8_t>(sign | 0x7fU)};
  }
  if (magnitude >= 0x43e00000U) {
    return Fp8E4m3{static_cast<std::uint8_t>(sign | 0x7eU)};
  }
  if (magnitude < 0x3c800000U) {  // subnormal: adding 2^14 lets the hardware round at 2^-9
    const float shifted = f32_of_bits(magnitude) + 0x1p14F;
    return Fp8E4m3{static_cast<std::uint8_t>(sign | (bits_of_f32(shifted) - 0x46800000U))};
  }
  const std::uint32_t rebased = magnitude - 0x3c000000U;
  const std::uint32_t rounded = rebased + 0x7ffffU + (rebased >> 20 & 1U);
  return Fp8E4m3{static_cast<std::uint8_t>(sign | rounded >> 20)};
}

}  // namespace kvfathom::kernels
