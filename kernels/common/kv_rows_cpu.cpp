#include "kernels/common/kv_rows_cpu.h"

#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/common/kv_rows_cpu.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/common/number_formats.h"

// Every product that a sum follows must be rounded by itself, or the bits are not encode_row's:
// this file is compiled with -ffp-contract=off.
HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::CappedTag<float, 16>;  // divides a block of 32
using I32 = hn::RebindToSigned<F32>;
using U32 = hn::RebindToUnsigned<F32>;
using I8 = hn::Rebind<std::int8_t, F32>;
using U8 = hn::Rebind<std::uint8_t, F32>;
using U16 = hn::Rebind<std::uint16_t, F32>;
using VF = hn::Vec<F32>;
using VU = hn::Vec<U32>;

constexpr F32 kF32;
constexpr I32 kI32;
constexpr U32 kU32;

template <typename T>
void put(std::byte* bytes, std::size_t index, T value) {
  std::memcpy(bytes + index * sizeof(T), &value, sizeof(T));
}
template <typename T>
T get(const std::byte* bytes, std::size_t index) {
  T value;
  std::memcpy(&value, bytes + index * sizeof(T), sizeof(T));
  return value;
}

float largest_magnitude(const float* x, int n) {
  const int lanes = static_cast<int>(hn::Lanes(kF32));
  VF largest = hn::Zero(kF32);
  int i = 0;
  for (; i + lanes <= n; i += lanes) {
    largest = hn::Max(largest, hn::Abs(hn::LoadU(kF32, x + i)));
  }
  float out = hn::GetLane(hn::MaxOfLanes(kF32, largest));
  for (; i < n; ++i) {
    out = std::fmax(out, std::fabs(x[i]));
  }
  return out;
}

/// roundf: halves away from zero. The distance to the truncated value is exact.
VF round_half_away(VF x) {
  const VF whole = hn::Trunc(x);
  const VF one = hn::CopySign(hn::Set(kF32, 1.0F), x);
  const auto up = hn::Ge(hn::Abs(hn::Sub(x, whole)), hn::Set(kF32, 0.5F));
  return hn::Add(whole, hn::IfThenElseZero(up, one));
}

void store_int8(VF whole_numbers, std::byte* to) {
  const auto narrow = hn::DemoteTo(I8(), hn::ConvertTo(kI32, whole_numbers));
  hn::StoreU(narrow, I8(), reinterpret_cast<std::int8_t*>(to));
}

void encode_q8_0(const float* x, std::byte* data, std::byte* scale_at) {
  const float scale = largest_magnitude(x, kQuantBlock) / 127.0F;
  const VF inverse = hn::Set(kF32, scale != 0.0F ? 1.0F / scale : 0.0F);
  put(scale_at, 0, to_f16(scale));
  for (std::size_t i = 0; i < kQuantBlock; i += hn::Lanes(kF32)) {
    store_int8(round_half_away(hn::Mul(hn::LoadU(kF32, x + i), inverse)), data + i);
  }
}

void encode_q4_0(const float* x, std::byte* data, std::byte* scale_at) {
  const float largest = largest_magnitude(x, kQuantBlock);
  float extreme = 0.0F;  // the first of largest magnitude, with its sign
  for (int i = kQuantBlock - 1; i >= 0; --i) {
    extreme = std::fabs(x[i]) == largest && largest > 0.0F ? x[i] : extreme;
  }
  const float scale = extreme / -8.0F;
  const VF inverse = hn::Set(kF32, scale != 0.0F ? 1.0F / scale : 0.0F);
  put(scale_at, 0, to_f16(scale));
  alignas(64) std::uint8_t nibbles[kQuantBlock];
  for (std::size_t i = 0; i < kQuantBlock; i += hn::Lanes(kF32)) {
    const VF shifted = hn::Add(hn::Mul(hn::LoadU(kF32, x + i), inverse), hn::Set(kF32, 8.5F));
    const auto nibble = hn::Min(hn::ConvertTo(kI32, shifted), hn::Set(kI32, 15));
    hn::StoreU(hn::DemoteTo(U8(), nibble), U8(), nibbles + i);
  }
  for (std::size_t i = 0; i < kQuantBlock / 2; ++i) {
    put(data, i, static_cast<std::uint8_t>(nibbles[i] | nibbles[i + kQuantBlock / 2] << 4));
  }
}

void encode_int8_token(const float* x, int n, std::byte* data, std::byte* scale_at) {
  const float scale = largest_magnitude(x, n) / 127.0F;
  put(scale_at, 0, scale);
  const int lanes = static_cast<int>(hn::Lanes(kF32));
  int i = 0;
  for (; scale != 0.0F && i + lanes <= n; i += lanes) {
    store_int8(hn::Round(hn::Div(hn::LoadU(kF32, x + i), hn::Set(kF32, scale))), data + i);
  }
  for (; i < n; ++i) {
    const float quotient = scale != 0.0F ? x[i] / scale : 0.0F;
    put(data, static_cast<std::size_t>(i), static_cast<std::int8_t>(std::nearbyint(quotient)));
  }
}

VU bf16_bits(VF x) {
  const VU bits = hn::BitCast(kU32, x);
  const VU upper = hn::ShiftRight<16>(bits);
  const VU odd = hn::And(upper, hn::Set(kU32, 1U));
  const VU rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(kU32, 0x7fffU)), odd));
  const VU quiet = hn::Or(upper, hn::Set(kU32, 0x40U));
  return hn::IfThenElse(hn::RebindMask(kU32, hn::IsNaN(x)), quiet, rounded);
}

/// Drops `Bits` bits of the mantissa, to nearest even.
template <int Bits>
VU rounded_shift(VU bits) {
  const VU odd = hn::And(hn::ShiftRight<Bits>(bits), hn::Set(kU32, 1U));
  const VU half = hn::Set(kU32, (1U << (Bits - 1)) - 1U);
  return hn::ShiftRight<Bits>(hn::Add(hn::Add(bits, half), odd));
}

/// Subnormal results: adding a power of two lets the hardware round at the format's last place.
VU subnormal_bits(VU magnitude, float power) {
  const VF shifted = hn::Add(hn::BitCast(kF32, magnitude), hn::Set(kF32, power));
  return hn::Sub(hn::BitCast(kU32, shifted), hn::BitCast(kU32, hn::Set(kF32, power)));
}

// Magnitudes are below 2^31, so comparing them as signed numbers is right, and cheap everywhere.
auto at_least(VU magnitude, std::int32_t limit) {
  return hn::RebindMask(kU32, hn::Gt(hn::BitCast(kI32, magnitude), hn::Set(kI32, limit - 1)));
}

VU f16_bits(VF x) {
  const VU bits = hn::BitCast(kU32, x);
  const VU sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(kU32, 0x8000U));
  const VU magnitude = hn::And(bits, hn::Set(kU32, 0x7fffffffU));
  VU out = rounded_shift<13>(hn::Sub(magnitude, hn::Set(kU32, 0x38000000U)));
  const auto normal = at_least(magnitude, 0x38800000);
  out = hn::IfThenElse(normal, out, subnormal_bits(magnitude, 0.5F));
  out = hn::IfThenElse(at_least(magnitude, 0x477ff000), hn::Set(kU32, 0x7c00U), out);
  out = hn::IfThenElse(at_least(magnitude, 0x7f800001), hn::Set(kU32, 0x7e00U), out);
  return hn::Or(sign, out);
}

VU fp8_e4m3_bits(VF x) {
  const VU bits = hn::BitCast(kU32, x);
  const VU sign = hn::And(hn::ShiftRight<24>(bits), hn::Set(kU32, 0x80U));
  const VU magnitude = hn::And(bits, hn::Set(kU32, 0x7fffffffU));
  VU out = rounded_shift<20>(hn::Sub(magnitude, hn::Set(kU32, 0x3c000000U)));
  const auto normal = at_least(magnitude, 0x3c800000);
  out = hn::IfThenElse(normal, out, subnormal_bits(magnitude, 0x1p14F));
  out = hn::IfThenElse(at_least(magnitude, 0x43e00000), hn::Set(kU32, 0x7eU), out);
  out = hn::IfThenElse(at_least(magnitude, 0x7f800001), hn::Set(kU32, 0x7fU), out);
  return hn::Or(sign, out);
}

void encode_elements(KvFormat format, const float* x, int n, float head_scale, std::byte* data) {
  const int lanes = static_cast<int>(hn::Lanes(kF32));
  int i = 0;
  for (; i + lanes <= n; i += lanes) {
    const VF values = hn::LoadU(kF32, x + i);
    if (format == KvFormat::fp8_e4m3) {
      const VU bits = fp8_e4m3_bits(hn::Div(values, hn::Set(kF32, head_scale)));
      hn::StoreU(hn::DemoteTo(U8(), hn::BitCast(kI32, bits)),
                 U8(),
                 reinterpret_cast<std::uint8_t*>(data) + i);
    } else {
      const VU bits = format == KvFormat::f16 ? f16_bits(values) : bf16_bits(values);
      hn::StoreU(hn::DemoteTo(U16(), hn::BitCast(kI32, bits)),
                 U16(),
                 reinterpret_cast<std::uint16_t*>(data) + i);
    }
  }
  for (; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (format == KvFormat::fp8_e4m3) {
      put(data, at, to_fp8_e4m3(x[i] / head_scale));
    } else if (format == KvFormat::f16) {
      put(data, at, to_f16(x[i]));
    } else {
      put(data, at, to_bf16(x[i]));
    }
  }
}

void decode_int8(const std::byte* data, int n, float scale, float* out) {
  const int lanes = static_cast<int>(hn::Lanes(kF32));
  int i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto narrow = hn::LoadU(I8(), reinterpret_cast<const std::int8_t*>(data) + i);
    const VF values = hn::ConvertTo(kF32, hn::PromoteTo(kI32, narrow));
    hn::StoreU(hn::Mul(values, hn::Set(kF32, scale)), kF32, out + i);
  }
  for (; i < n; ++i) {
    out[i] = static_cast<float>(get<std::int8_t>(data, static_cast<std::size_t>(i))) * scale;
  }
}

void decode_q4_0_block(const std::byte* data, float scale, float* out) {
  const U8 narrow;
  for (std::size_t i = 0; i < kQuantBlock / 2; i += hn::Lanes(kF32)) {
    const auto bytes = hn::LoadU(narrow, reinterpret_cast<const std::uint8_t*>(data) + i);
    const auto wide = hn::PromoteTo(kI32, bytes);
    const auto low = hn::And(wide, hn::Set(kI32, 0xf));
    const auto high = hn::ShiftRight<4>(wide);
    const auto eight = hn::Set(kI32, 8);
    const VF factor = hn::Set(kF32, scale);
    hn::StoreU(hn::Mul(hn::ConvertTo(kF32, hn::Sub(low, eight)), factor), kF32, out + i);
    hn::StoreU(hn::Mul(hn::ConvertTo(kF32, hn::Sub(high, eight)), factor),
               kF32,
               out + i + kQuantBlock / 2);
  }
}

VF f32_of_bf16(VU bits) {
  return hn::BitCast(kF32, hn::ShiftLeft<16>(bits));
}
VF f32_of_f16(VU bits) {
  const VU sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(kU32, 0x8000U)));
  const VU fields = hn::ShiftLeft<13>(hn::And(bits, hn::Set(kU32, 0x7fffU)));
  // The fields of a binary16 moved into a binary32 stand for 2^-112 of its value, exactly.
  const VU scaled = hn::BitCast(kU32, hn::Mul(hn::BitCast(kF32, fields), hn::Set(kF32, 0x1p112F)));
  const VU special = hn::Or(fields, hn::Set(kU32, 0x7f800000U));
  return hn::BitCast(kF32,
                     hn::Or(sign, hn::IfThenElse(at_least(fields, 0x0f800000), special, scaled)));
}

void decode_16_bits(KvFormat format, const std::byte* data, int n, float* out) {
  const int lanes = static_cast<int>(hn::Lanes(kF32));
  int i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto narrow = hn::LoadU(U16(), reinterpret_cast<const std::uint16_t*>(data) + i);
    const VU bits = hn::PromoteTo(kU32, narrow);
    hn::StoreU(format == KvFormat::f16 ? f32_of_f16(bits) : f32_of_bf16(bits), kF32, out + i);
  }
  for (; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    out[i] = format == KvFormat::f16 ? to_f32(get<F16>(data, at)) : to_f32(get<Bf16>(data, at));
  }
}

void encode(KvFormat format,
            const float* row,
            int n,
            float head_scale,
            std::byte* data,
            std::byte* scales) {
  switch (format) {
    case KvFormat::q8_0:
      for (int block = 0; block < n / kQuantBlock; ++block) {
        encode_q8_0(row + block * kQuantBlock, data + block * kQuantBlock, scales + block * 2);
      }
      break;
    case KvFormat::q4_0:
      for (int block = 0; block < n / kQuantBlock; ++block) {
        encode_q4_0(row + block * kQuantBlock, data + block * kQuantBlock / 2, scales + block * 2);
      }
      break;
    case KvFormat::int8_token:
      encode_int8_token(row, n, data, scales);
      break;
    default:
      encode_elements(format, row, n, head_scale, data);
  }
}

void decode(KvFormat format,
            const std::byte* data,
            const std::byte* scales,
            float head_scale,
            int n,
            float* row) {
  switch (format) {
    case KvFormat::q8_0:
    case KvFormat::q4_0:
      for (int block = 0; block < n / kQuantBlock; ++block) {
        const float scale = to_f32(get<F16>(scales, static_cast<std::size_t>(block)));
        float* out = row + block * kQuantBlock;
        format == KvFormat::q8_0 ? decode_int8(data + block * kQuantBlock, kQuantBlock, scale, out)
                                 : decode_q4_0_block(data + block * kQuantBlock / 2, scale, out);
      }
      break;
    case KvFormat::int8_token:
      decode_int8(data, n, get<float>(scales, 0), row);
      break;
    case KvFormat::fp8_e4m3:
      for (int i = 0; i < n; ++i) {
        row[i] = to_f32(get<Fp8E4m3>(data, static_cast<std::size_t>(i))) * head_scale;
      }
      break;
    default:
      decode_16_bits(format, data, n, row);
  }
}

}  // namespace
}  // namespace kvfathom::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvfathom::kernels {
namespace {
HWY_EXPORT(encode);
HWY_EXPORT(decode);
}  // namespace

void encode_row_cpu(KvFormat format,
                    const float* row,
                    int n,
                    float head_scale,
                    std::byte* data,
                    std::byte* scales) {
  HWY_DYNAMIC_DISPATCH(encode)(format, row, n, head_scale, data, scales);
}

void decode_row_cpu(KvFormat format,
                    const std::byte* data,
                    const std::byte* scales,
                    float head_scale,
                    int n,
                    float* row) {
  HWY_DYNAMIC_DISPATCH(decode)(format, data, scales, head_scale, n, row);
}

}  // namespace kvfathom::kernels
#endif
