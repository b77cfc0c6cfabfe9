// Rows of a cache as floats, vectorised: included once per Highway target by CPU versions.
#if defined(KVFATHOM_KERNELS_COMMON_KV_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVFATHOM_KERNELS_COMMON_KV_ROWS_INL_H_
#undef KVFATHOM_KERNELS_COMMON_KV_ROWS_INL_H_
#else
#define KVFATHOM_KERNELS_COMMON_KV_ROWS_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/common/kv_format.h"

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using FloatVector = hn::Vec<FloatTag>;

/// Rows must hold whole vectors of every target: 16 floats on AVX-512.
inline constexpr int kLargestVectorFloats = 16;

/// One f16 as a float, in hardware where there is any.
inline float float_of_f16(const std::byte* at) {
  const hn::CappedTag<float, 1> one;
  const hn::Rebind<hwy::float16_t, decltype(one)> one_half;
  return hn::GetLane(
      hn::PromoteTo(one, hn::LoadU(one_half, reinterpret_cast<const hwy::float16_t*>(at))));
}

/// Each has load(data, i): elements [i, i + lanes) of a row, without the row's own scale.
struct F32Row {
  static FloatVector load(const std::byte* data, int i) {
    return hn::LoadU(FloatTag(), reinterpret_cast<const float*>(data) + i);
  }
};
struct F16Row {
  static FloatVector load(const std::byte* data, int i) {
    const FloatTag f32;
    const hn::Rebind<hwy::float16_t, FloatTag> f16;
    return hn::PromoteTo(f32, hn::LoadU(f16, reinterpret_cast<const hwy::float16_t*>(data) + i));
  }
};
struct Bf16Row {
  static FloatVector load(const std::byte* data, int i) {
    const FloatTag f32;
    const hn::Rebind<std::uint32_t, FloatTag> u32;
    const hn::Rebind<std::uint16_t, FloatTag> u16;
    const auto bits = hn::LoadU(u16, reinterpret_cast<const std::uint16_t*>(data) + i);
    return hn::BitCast(f32, hn::ShiftLeft<16>(hn::PromoteTo(u32, bits)));
  }
};
struct Int8Row {
  static FloatVector load(const std::byte* data, int i) {
    const FloatTag f32;
    const hn::Rebind<std::int32_t, FloatTag> i32;
    const hn::Rebind<std::int8_t, FloatTag> i8;
    const auto bytes = hn::LoadU(i8, reinterpret_cast<const std::int8_t*>(data) + i);
    return hn::ConvertTo(f32, hn::PromoteTo(i32, bytes));
  }
};
/// The fields of an E4M3, shifted into a binary16, stand for 2^-8 of its value (but for NaN).
struct Fp8E4m3Row {
  static FloatVector load(const std::byte* data, int i) {
    const FloatTag f32;
    const hn::Rebind<hwy::float16_t, FloatTag> f16;
    const hn::Rebind<std::uint16_t, FloatTag> u16;
    const hn::Rebind<std::uint8_t, FloatTag> u8;
    const auto bytes = hn::LoadU(u8, reinterpret_cast<const std::uint8_t*>(data) + i);
    const auto wide = hn::PromoteTo(u16, bytes);
    const auto sign = hn::ShiftLeft<8>(hn::And(wide, hn::Set(u16, std::uint16_t{0x80})));
    const auto fields = hn::ShiftLeft<7>(hn::And(wide, hn::Set(u16, std::uint16_t{0x7f})));
    const auto value = hn::PromoteTo(f32, hn::BitCast(f16, hn::Or(sign, fields)));
    return hn::Mul(value, hn::Set(f32, 256.0F));
  }
};

template <typename Row>
void decode_unscaled(int n, const std::byte* data, float* out) {
  const FloatTag f32;
  for (int i = 0; i < n; i += static_cast<int>(hn::Lanes(f32))) {
    hn::StoreU(Row::load(data, i), f32, out + i);
  }
}

/// int8 times f16 has 19 significant bits at most: exact.
inline void decode_q8_0(int n, const std::byte* data, const std::byte* scales, float* out) {
  const FloatTag f32;
  const int lanes = static_cast<int>(hn::Lanes(f32));
  for (int block = 0; block < n; block += kQuantBlock, scales += 2) {
    const auto scale = hn::Set(f32, float_of_f16(scales));
    for (int i = block; i < block + kQuantBlock; i += lanes) {
      hn::StoreU(hn::Mul(Int8Row::load(data, i), scale), f32, out + i);
    }
  }
}

inline void decode_q4_0(int n, const std::byte* data, const std::byte* scales, float* out) {
  const FloatTag f32;
  const hn::Rebind<std::int32_t, FloatTag> i32;
  const hn::Rebind<std::uint8_t, FloatTag> u8;
  const int lanes = static_cast<int>(hn::Lanes(f32));
  const auto low_nibble = hn::Set(i32, 0xf);
  const auto eight = hn::Set(i32, 8);
  for (int block = 0; block < n; block += kQuantBlock, scales += 2) {
    const auto scale = hn::Set(f32, float_of_f16(scales));
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(data) + block / 2;
    for (int i = 0; i < kQuantBlock / 2; i += lanes) {
      const auto pair = hn::PromoteTo(i32, hn::LoadU(u8, bytes + i));
      const auto low = hn::Sub(hn::And(pair, low_nibble), eight);
      const auto high = hn::Sub(hn::ShiftRight<4>(pair), eight);
      float* const at = out + block + i;
      hn::StoreU(hn::Mul(hn::ConvertTo(f32, low), scale), f32, at);
      hn::StoreU(hn::Mul(hn::ConvertTo(f32, high), scale), f32, at + kQuantBlock / 2);
    }
  }
}

/// One row of n elements (a multiple of kLargestVectorFloats) as floats, exactly; int8_token and
/// fp8_e4m3 without their scale, which belongs to all of a row.
inline void decode_kv_row(
    KvFormat format, int n, const std::byte* data, const std::byte* scales, float* out) {
  switch (format) {
    case KvFormat::f16:
      return decode_unscaled<F16Row>(n, data, out);
    case KvFormat::bf16:
      return decode_unscaled<Bf16Row>(n, data, out);
    case KvFormat::q8_0:
      return decode_q8_0(n, data, scales, out);
    case KvFormat::q4_0:
      return decode_q4_0(n, data, scales, out);
    case KvFormat::int8_token:
      return decode_unscaled<Int8Row>(n, data, out);
    case KvFormat::fp8_e4m3:
      return decode_unscaled<Fp8E4m3Row>(n, data, out);
  }
}

}  // namespace kvfathom::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
