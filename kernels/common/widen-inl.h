// Weights and activations to floats, vectorised: what Highway compiles once per instruction set.
// Include only after "hwy/foreach_target.h"; weight_product.h has functions to call from elsewhere.
#if defined(KVFATHOM_KERNELS_COMMON_WIDEN_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef KVFATHOM_KERNELS_COMMON_WIDEN_INL_H
#undef KVFATHOM_KERNELS_COMMON_WIDEN_INL_H
#else
#define KVFATHOM_KERNELS_COMMON_WIDEN_INL_H
#endif

#include <cstring>

#include <hwy/highway.h>

#include "kernels/common/weight_format.h"

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// At most 16 lanes, so that a block of 32 holds whole vectors.
using FloatTag = hn::CappedTag<float, 16>;

using FloatVector = hn::Vec<FloatTag>;

HWY_INLINE FloatVector load_bf16(const std::uint16_t* from) {
  const hn::Rebind<std::uint32_t, FloatTag> words;
  const hn::Rebind<std::uint16_t, FloatTag> halves;
  const auto wide = hn::PromoteTo(words, hn::LoadU(halves, from));
  return hn::BitCast(FloatTag(), hn::ShiftLeft<16>(wide));
}
template <typename Tag = FloatTag>
HWY_INLINE hn::Vec<Tag> load_f16(const std::uint16_t* from) {
  const hn::Rebind<hwy::float16_t, Tag> halves;
  const hn::Rebind<std::uint16_t, Tag> bits;
  return hn::PromoteTo(Tag(), hn::BitCast(halves, hn::LoadU(bits, from)));
}
HWY_INLINE FloatVector load_int8(const std::int8_t* from) {
  const hn::Rebind<std::int32_t, FloatTag> words;
  const hn::Rebind<std::int8_t, FloatTag> bytes;
  return hn::ConvertTo(FloatTag(), hn::PromoteTo(words, hn::LoadU(bytes, from)));
}
/// The low nibbles of a vector of bytes, and the high ones.
HWY_INLINE void load_nibbles(const std::uint8_t* from, FloatVector& low, FloatVector& high) {
  const hn::Rebind<std::int32_t, FloatTag> words;
  const hn::Rebind<std::uint8_t, FloatTag> bytes;
  const auto both = hn::PromoteTo(words, hn::LoadU(bytes, from));
  low = hn::ConvertTo(FloatTag(), hn::And(both, hn::Set(words, 15)));
  high = hn::ConvertTo(FloatTag(), hn::ShiftRight<4>(both));
}

HWY_INLINE void widen_bf16(const std::uint16_t* from, std::int64_t n, float* to) {
  const FloatTag floats;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(floats));
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(load_bf16(from + i), floats, to + i);
  }
  for (; i < n; ++i) {
    to[i] = to_f32(Bf16{from[i]});
  }
}

/// The bits of to_bf16: ties to even, NaN stays NaN.
HWY_INLINE void narrow_bf16(const float* from, std::int64_t n, std::uint16_t* to) {
  const FloatTag floats;
  const hn::Rebind<std::uint32_t, FloatTag> words;
  const hn::Rebind<std::uint16_t, FloatTag> halves;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(floats));
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto value = hn::LoadU(floats, from + i);
    const auto bits = hn::BitCast(words, value);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(words, 1));
    const auto rounded = hn::Add(bits, hn::Add(hn::Set(words, 0x7fff), odd));
    const auto quiet = hn::Or(bits, hn::Set(words, 0x400000));
    const auto is_nan = hn::RebindMask(words, hn::IsNaN(value));
    const auto chosen = hn::IfThenElse(is_nan, quiet, rounded);
    hn::StoreU(hn::TruncateTo(halves, hn::ShiftRight<16>(chosen)), halves, to + i);
  }
  for (; i < n; ++i) {
    to[i] = to_bf16(from[i]).bits;
  }
}

HWY_INLINE void widen_f16(const std::uint16_t* from, std::int64_t n, float* to) {
  const FloatTag floats;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(floats));
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(load_f16(from + i), floats, to + i);
  }
  for (; i < n; ++i) {
    to[i] = to_f32(F16{from[i]});
  }
}

HWY_INLINE float f16_from(const std::byte* block) {
  F16 value;
  std::memcpy(&value, block, sizeof(value));
  return to_f32(value);
}

HWY_INLINE void widen_q8_0(const std::byte* block, float* to) {
  const FloatTag floats;
  const auto scale = hn::Set(floats, f16_from(block));
  const auto* from = reinterpret_cast<const std::int8_t*>(block + 2);
  for (std::size_t i = 0; i < 32; i += hn::Lanes(floats)) {
    hn::StoreU(hn::Mul(load_int8(from + i), scale), floats, to + i);
  }
}

/// `n` bytes of nibbles: scale * nibble - offset, the low ones to `low`, the high ones to `high`.
struct NibbleScale {
  float scale, offset;
};
HWY_INLINE void widen_nibbles(const std::byte* packed,
                              std::size_t n,
                              NibbleScale of_low,
                              float* low,
                              NibbleScale of_high,
                              float* high) {
  const FloatTag floats;
  const auto* from = reinterpret_cast<const std::uint8_t*>(packed);
  for (std::size_t i = 0; i < n; i += hn::Lanes(floats)) {
    FloatVector lower, upper;
    load_nibbles(from + i, lower, upper);
    hn::StoreU(hn::MulSub(lower, hn::Set(floats, of_low.scale), hn::Set(floats, of_low.offset)),
               floats,
               low + i);
    hn::StoreU(hn::MulSub(upper, hn::Set(floats, of_high.scale), hn::Set(floats, of_high.offset)),
               floats,
               high + i);
  }
}

HWY_INLINE void widen_q4_0(const std::byte* block, float* to) {
  const float scale = f16_from(block);
  const NibbleScale of_both{scale, 8.0F * scale};
  widen_nibbles(block + 2, 16, of_both, to, of_both, to + 16);
}

/// Four bytes each of two words, as floats times `factor`.
HWY_INLINE void scale_fields(const std::uint32_t (&words)[2], float factor, float* to) {
  const hn::CappedTag<float, 8> floats;
  const hn::Rebind<std::int32_t, decltype(floats)> integers;
  const hn::Rebind<std::uint8_t, decltype(floats)> bytes;
  const auto* from = reinterpret_cast<const std::uint8_t*>(words);
  for (std::size_t i = 0; i < 8; i += hn::Lanes(floats)) {
    const auto field = hn::ConvertTo(floats, hn::PromoteTo(integers, hn::LoadU(bytes, from + i)));
    hn::StoreU(hn::Mul(field, hn::Set(floats, factor)), floats, to + i);
  }
}
/// The scales and offsets of the eight sub-blocks of a q4_K block: its twelve packed bytes are
/// three words of four fields; the upper two bits of the last four stand with the first four.
HWY_INLINE void q4_k_scales(const std::byte* block, float* scales, float* offsets) {
  std::uint32_t packed[3];
  std::memcpy(packed, block + 4, sizeof(packed));
  const std::uint32_t of_scales[2] = {
      packed[0] & 0x3f3f3f3fU, (packed[2] & 0x0f0f0f0fU) | (packed[0] >> 6 & 0x03030303U) << 4};
  const std::uint32_t of_mins[2] = {packed[1] & 0x3f3f3f3fU,
                                    (packed[2] >> 4 & 0x0f0f0f0fU) | (packed[1] >> 6 & 0x03030303U)
                                                                         << 4};
  scale_fields(of_scales, f16_from(block), scales);
  scale_fields(of_mins, f16_from(block + 2), offsets);
}

HWY_INLINE void widen_q4_k(const std::byte* block, float* to) {
  float scales[8];
  float offsets[8];
  q4_k_scales(block, scales, offsets);
  for (int low = 0; low < 8; low += 2) {
    widen_nibbles(block + 16 + 16 * low,
                  32,
                  {scales[low], offsets[low]},
                  to + 32 * low,
                  {scales[low + 1], offsets[low + 1]},
                  to + 32 * low + 32);
  }
}

/// Elements [first, first + count) of a stored row; both hold whole blocks.
HWY_INLINE void widen_part(
    WeightFormat format, const std::byte* row, std::int64_t first, std::int64_t count, float* to) {
  const WeightBlock block = block_of(format);
  const std::byte* from = row + first / block.elements * block.bytes;
  if (format == WeightFormat::bf16) {
    widen_bf16(reinterpret_cast<const std::uint16_t*>(from), count, to);
    return;
  }
  if (format == WeightFormat::f16) {
    widen_f16(reinterpret_cast<const std::uint16_t*>(from), count, to);
    return;
  }
  for (std::int64_t i = 0; i < count; i += block.elements) {
    if (format == WeightFormat::q8_0) {
      widen_q8_0(from, to + i);
    } else if (format == WeightFormat::q4_0) {
      widen_q4_0(from, to + i);
    } else {
      widen_q4_k(from, to + i);
    }
    from += block.bytes;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kvfathom::kernels
HWY_AFTER_NAMESPACE();

#endif
