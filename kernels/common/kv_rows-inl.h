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

/// A row where it lies; `scales`: of its blocks of kQuantBlock as floats, or null.
struct RowAt {
  const std::byte* data;
  const float* scales;
};

/// Each has load(row, i): elements [i, i + lanes), exactly; those of int8_token and fp8_e4m3
/// without their scale, which belongs to all of a row.
template <typename Row>
struct OneVectorRow {
  static constexpr int kVectors = 1;
  static void load(RowAt row, int i, FloatVector (&out)[1]) { out[0] = Row::vector(row, i); }
};
struct F32Row : OneVectorRow<F32Row> {
  static FloatVector vector(RowAt row, int i) {
    return hn::LoadU(FloatTag(), reinterpret_cast<const float*>(row.data) + i);
  }
};
struct F16Row : OneVectorRow<F16Row> {
  static FloatVector vector(RowAt row, int i) {
    const FloatTag f32;
    const hn::Rebind<hwy::float16_t, FloatTag> f16;
    return hn::PromoteTo(f32,
                         hn::LoadU(f16, reinterpret_cast<const hwy::float16_t*>(row.data) + i));
  }
};
struct Bf16Row : OneVectorRow<Bf16Row> {
  static FloatVector vector(RowAt row, int i) {
    const FloatTag f32;
    const hn::Rebind<std::uint32_t, FloatTag> u32;
    const hn::Rebind<std::uint16_t, FloatTag> u16;
    const auto bits = hn::LoadU(u16, reinterpret_cast<const std::uint16_t*>(row.data) + i);
    return hn::BitCast(f32, hn::ShiftLeft<16>(hn::PromoteTo(u32, bits)));
  }
};
struct Int8Row : OneVectorRow<Int8Row> {
  static FloatVector vector(RowAt row, int i) {
    const hn::Rebind<std::int32_t, FloatTag> i32;
    const hn::Rebind<std::int8_t, FloatTag> i8;
    const auto bytes = hn::LoadU(i8, reinterpret_cast<const std::int8_t*>(row.data) + i);
    return hn::ConvertTo(FloatTag(), hn::PromoteTo(i32, bytes));
  }
};
/// Two vectors at once, the even elements and the odd ones of a run of 2 lanes: half the work, for
/// callers that hold queries and outputs in the same order.
struct Bf16PairRow {
  static constexpr int kVectors = 2;
  static void load(RowAt row, int i, FloatVector (&out)[kVectors]) {
    const FloatTag f32;
    const hn::Rebind<std::uint32_t, FloatTag> u32;
    const auto pairs = hn::LoadU(u32, reinterpret_cast<const std::uint32_t*>(row.data) + i / 2);
    out[0] = hn::BitCast(f32, hn::ShiftLeft<16>(pairs));
    out[1] = hn::BitCast(f32, hn::And(pairs, hn::Set(u32, 0xffff0000U)));
  }
};
/// int8 times f16 has 19 significant bits at most: exact.
struct Q8Row : OneVectorRow<Q8Row> {
  static FloatVector vector(RowAt row, int i) {
    return hn::Mul(Int8Row::vector(row, i), hn::Set(FloatTag(), row.scales[i / kQuantBlock]));
  }
};
/// The fields of an E4M3, shifted into a binary32, stand for 2^-120 of its value, subnormal or not
/// (but for NaN).
struct Fp8E4m3Row : OneVectorRow<Fp8E4m3Row> {
  static FloatVector vector(RowAt row, int i) {
    const FloatTag f32;
    const hn::Rebind<std::int32_t, FloatTag> i32;
    const hn::Rebind<std::int8_t, FloatTag> i8;
    const auto bytes = hn::LoadU(i8, reinterpret_cast<const std::int8_t*>(row.data) + i);
    const auto shifted = hn::ShiftLeft<20>(hn::PromoteTo(i32, bytes));  // the sign in many copies
    const auto fields = hn::And(shifted, hn::Set(i32, static_cast<std::int32_t>(0x87f00000U)));
    return hn::Mul(hn::BitCast(f32, fields), hn::Set(f32, 0x1p120F));
  }
};

/// n elements as floats, in the order in which `Row` loads them.
template <typename Row>
inline void decode_row_of(int n, RowAt row, float* out) {
  const FloatTag f32;
  const int lanes = static_cast<int>(hn::Lanes(f32));
  for (int i = 0; i < n; i += Row::kVectors * lanes) {
    FloatVector vectors[Row::kVectors];
    Row::load(row, i, vectors);
    for (int j = 0; j < Row::kVectors; ++j) {
      hn::StoreU(vectors[j], f32, out + i + j * lanes);
    }
  }
}

/// The low nibbles of 16 bytes are the first half of a block, the high ones the second.
HWY_NOINLINE void decode_q4_0_row(int n,
                                  const std::byte* data,
                                  const std::byte* scales,
                                  float* out) {
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

}  // namespace kvfathom::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
