// Stored weights times a few tokens, vectorised: weights are widened into registers, where each
// vector of them meets several tokens and each vector of a token several rows. What a block is
// scaled by multiplies its sum. Include only after "hwy/foreach_target.h".
#if defined(KVFATHOM_KERNELS_COMMON_GEMV_ROWS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef KVFATHOM_KERNELS_COMMON_GEMV_ROWS_INL_H
#undef KVFATHOM_KERNELS_COMMON_GEMV_ROWS_INL_H
#else
#define KVFATHOM_KERNELS_COMMON_GEMV_ROWS_INL_H
#endif

#include <algorithm>
#include <cstring>

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "kernels/common/gemv_tokens.h"
#include "kernels/common/widen-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels {
namespace HWY_NAMESPACE {

constexpr int kGroupVectors = kGroup / static_cast<int>(hn::MaxLanes(FloatTag()));

/// Of the groups of a block: value = scale * element - offset.
template <int kGroups>
struct GroupScales {
  float scales[kGroups], offsets[kGroups];
};

/// One f16 as a float, in hardware where there is any.
HWY_INLINE float leading_f16(const std::byte* block) {
  using One = hn::CappedTag<float, 1>;
  return hn::GetLane(load_f16<One>(reinterpret_cast<const std::uint16_t*>(block)));
}

/// A format's elements in registers, unscaled: load() widens groups [group, group + kLoaded) of a
/// row in the order of x, load_scales() is of the block that begins with `group`.
template <WeightFormat kFormat>
struct RowElements {  // f16 and bf16
  static constexpr int kLoaded = 1, kBlockGroups = 1;
  static constexpr bool kScaled = false, kOffset = false;
  static HWY_INLINE void load(const std::byte* row,
                              std::int64_t group,
                              FloatVector (&to)[kLoaded][kGroupVectors]) {
    const auto* from = reinterpret_cast<const std::uint16_t*>(row) + group * kGroup;
    for (FloatVector& vector : to[0]) {
      vector = kFormat == WeightFormat::bf16 ? load_bf16(from) : load_f16(from);
      from += hn::Lanes(FloatTag());
    }
  }
};
template <>
struct RowElements<WeightFormat::q8_0> {
  static constexpr int kLoaded = 1, kBlockGroups = 1;
  static constexpr bool kScaled = true, kOffset = false;
  static constexpr int kGroupBytes = block_of(WeightFormat::q8_0).bytes;
  static HWY_INLINE void load(const std::byte* row,
                              std::int64_t group,
                              FloatVector (&to)[kLoaded][kGroupVectors]) {
    const auto* from = reinterpret_cast<const std::int8_t*>(row + group * kGroupBytes + 2);
    for (FloatVector& vector : to[0]) {
      vector = load_int8(from);
      from += hn::Lanes(FloatTag());
    }
  }
  static HWY_INLINE void load_scales(const std::byte* row,
                                     std::int64_t group,
                                     GroupScales<kBlockGroups>& to) {
    to.scales[0] = leading_f16(row + group * kGroupBytes);
  }
};
template <>
struct RowElements<WeightFormat::q4_0> {
  static constexpr int kLoaded = 1, kBlockGroups = 1;
  static constexpr bool kScaled = true, kOffset = true;
  static constexpr int kGroupBytes = block_of(WeightFormat::q4_0).bytes;
  static HWY_INLINE void load(const std::byte* row,
                              std::int64_t group,
                              FloatVector (&to)[kLoaded][kGroupVectors]) {
    constexpr int kHalf = kGroupVectors / 2;
    const auto* from = reinterpret_cast<const std::uint8_t*>(row + group * kGroupBytes + 2);
    for (int i = 0; i < kHalf; ++i) {
      load_nibbles(from, to[0][i], to[0][i + kHalf]);
      from += hn::Lanes(FloatTag());
    }
  }
  static HWY_INLINE void load_scales(const std::byte* row,
                                     std::int64_t group,
                                     GroupScales<kBlockGroups>& to) {
    to.scales[0] = leading_f16(row + group * kGroupBytes);
    to.offsets[0] = 8.0F * to.scales[0];
  }
};
template <>
struct RowElements<WeightFormat::q4_k> {
  static constexpr int kLoaded = 2, kBlockGroups = 8;
  static constexpr bool kScaled = true, kOffset = true;
  static constexpr int kGroupBytes = block_of(WeightFormat::q4_k).bytes / kBlockGroups;
  static HWY_INLINE const std::byte* block(const std::byte* row, std::int64_t group) {
    return row + group / kBlockGroups * block_of(WeightFormat::q4_k).bytes;
  }
  static HWY_INLINE void load(const std::byte* row,
                              std::int64_t group,
                              FloatVector (&to)[kLoaded][kGroupVectors]) {
    const auto* from =
        reinterpret_cast<const std::uint8_t*>(block(row, group) + 16 + group % kBlockGroups * 16);
    for (int i = 0; i < kGroupVectors; ++i) {
      load_nibbles(from, to[0][i], to[1][i]);
      from += hn::Lanes(FloatTag());
    }
  }
  static HWY_INLINE void load_scales(const std::byte* row,
                                     std::int64_t group,
                                     GroupScales<kBlockGroups>& to) {
    q4_k_scales(block(row, group), to.scales, to.offsets);
  }
};

/// The sums of a row by `Tokens` tokens; what is to be subtracted from them apart.
template <int Tokens>
struct RowSums {
  FloatVector products[Tokens];
  float offsets[Tokens];
};

/// Asks for what will be read of a row a little later, or at its end, of the next: they follow one
/// another. Blocks keep the core too busy to run that far ahead by itself; with 16-bit rows it
/// does.
HWY_INLINE void prefetch_ahead(const std::byte* at) {
  constexpr std::int64_t kAhead = 1024;
  hwy::Prefetch(at + kAhead);
}

/// Adds the products of groups [group, group + kLoaded) of one row. With many tokens an element is
/// scaled before it meets them, with few the sum of a group is.
template <typename Elements, int Tokens>
HWY_INLINE void add_row_groups(const std::byte* row,
                               std::int64_t group,
                               const GroupScales<Elements::kBlockGroups>& scales,
                               const GemvTokens& tokens,
                               RowSums<Tokens>& sums) {
  constexpr bool kScaleSums = Elements::kScaled && Tokens <= 2;
  const FloatTag floats;
  const auto lanes = static_cast<int>(hn::Lanes(floats));
  FloatVector elements[Elements::kLoaded][kGroupVectors];
  Elements::load(row, group, elements);
  for (int g = 0; g < Elements::kLoaded; ++g) {
    const std::int64_t of_block = group % Elements::kBlockGroups + g;
    const float scale = Elements::kScaled ? scales.scales[of_block] : 1.0F;
    const float offset = Elements::kOffset ? scales.offsets[of_block] : 0.0F;
    for (int i = 0; i < kGroupVectors && Elements::kScaled && !kScaleSums; ++i) {
      elements[g][i] =
          Elements::kOffset
              ? hn::MulSub(elements[g][i], hn::Set(floats, scale), hn::Set(floats, offset))
              : hn::Mul(elements[g][i], hn::Set(floats, scale));
    }
    for (int t = 0; t < Tokens; ++t) {
      const float* x = tokens.x + t * tokens.k + (group + g) * kGroup;
      FloatVector sum = kScaleSums ? hn::Zero(floats) : sums.products[t];
      for (int i = 0; i < kGroupVectors; ++i) {
        sum = hn::MulAdd(elements[g][i], hn::LoadU(floats, x + i * lanes), sum);
      }
      sums.products[t] =
          kScaleSums ? hn::MulAdd(sum, hn::Set(floats, scale), sums.products[t]) : sum;
      if constexpr (kScaleSums && Elements::kOffset) {
        sums.offsets[t] += offset * tokens.sums[t * tokens.sum_stride + group + g];
      }
    }
  }
}
/// The same of rows [kRow, Rows). No loop: one that a compiler does not unroll keeps sums in
/// memory.
template <typename Elements, int Rows, int Tokens, int kRow = 0>
HWY_INLINE void add_groups(const std::byte* rows,
                           std::int64_t row_stride,
                           std::int64_t group,
                           const GroupScales<Elements::kBlockGroups> (&scales)[Rows],
                           const GemvTokens& tokens,
                           RowSums<Tokens> (&sums)[Rows]) {
  if constexpr (Elements::kScaled) {
    prefetch_ahead(rows + kRow * row_stride + group * Elements::kGroupBytes);
  }
  add_row_groups<Elements>(rows + kRow * row_stride, group, scales[kRow], tokens, sums[kRow]);
  if constexpr (kRow + 1 < Rows) {
    add_groups<Elements, Rows, Tokens, kRow + 1>(rows, row_stride, group, scales, tokens, sums);
  }
}

/// Where results go.
struct RowsOut {
  float* data;
  std::int64_t stride;    ///< from one token to the next
  std::int64_t row_step;  ///< from one row to the next
};

/// The n elements beyond the last whole group, which only 16-bit rows have: copied, zeros after
/// them.
template <typename Elements, int Rows, int Tokens>
HWY_NOINLINE void add_rest(const std::byte* rows,
                           std::int64_t row_stride,
                           std::int64_t n,
                           const float* x,
                           std::int64_t x_stride,
                           RowSums<Tokens> (&sums)[Rows]) {
  std::uint16_t of_rows[Rows][kGroup] = {};
  float of_x[Tokens][kGroup] = {};
  for (int r = 0; r < Rows; ++r) {
    std::memcpy(of_rows[r], rows + r * row_stride, n * sizeof(std::uint16_t));
  }
  for (int t = 0; t < Tokens; ++t) {
    std::copy_n(x + t * x_stride, n, of_x[t]);
  }
  const GroupScales<1> none[Rows] = {};
  add_groups<Elements>(reinterpret_cast<const std::byte*>(of_rows),
                       sizeof(of_rows[0]),
                       0,
                       none,
                       GemvTokens{of_x[0], kGroup, nullptr, 0},
                       sums);
}

/// out[t * out.stride + r * out.row_step] of `Rows` rows, `row_stride` bytes apart, and `Tokens`
/// tokens.
template <typename Elements, int Rows, int Tokens>
HWY_NOINLINE void multiply_rows(const std::byte* rows,
                                std::int64_t row_stride,
                                const GemvTokens& tokens,
                                const RowsOut& out) {
  const FloatTag floats;
  RowSums<Tokens> sums[Rows];
  for (int r = 0; r < Rows; ++r) {
    for (int t = 0; t < Tokens; ++t) {
      sums[r].products[t] = hn::Zero(floats);
      sums[r].offsets[t] = 0.0F;
    }
  }
  const std::int64_t n_groups = tokens.k / kGroup;
  for (std::int64_t first = 0; first < n_groups; first += Elements::kBlockGroups) {
    GroupScales<Elements::kBlockGroups> scales[Rows];
    for (int r = 0; r < Rows; ++r) {
      if constexpr (Elements::kScaled) {
        Elements::load_scales(rows + r * row_stride, first, scales[r]);
      }
    }
    for (int g = 0; g < Elements::kBlockGroups; g += Elements::kLoaded) {
      add_groups<Elements>(rows, row_stride, first + g, scales, tokens, sums);
    }
  }
  if constexpr (!Elements::kScaled) {
    if (const std::int64_t rest = tokens.k % kGroup; rest > 0) {
      const std::int64_t at = tokens.k - rest;
      add_rest<Elements>(rows + at * 2, row_stride, rest, tokens.x + at, tokens.k, sums);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int t = 0; t < Tokens; ++t) {
      out.data[t * out.stride + r * out.row_step] =
          hn::GetLane(hn::SumOfLanes(floats, sums[r].products[t])) - sums[r].offsets[t];
    }
  }
}

/// Sums of four rows by as many tokens leave room for operands in 32 registers, half in 16.
constexpr int kGemvRows = 4;
constexpr int kGemvTokens = hn::MaxLanes(FloatTag()) == 16 ? 4 : 2;

/// The same for m tokens, the largest blocks of them first.
template <typename Elements, int Rows, int Tokens = kGemvTokens>
HWY_INLINE void multiply_tokens(
    const std::byte* rows, std::int64_t row_stride, int m, GemvTokens tokens, RowsOut out) {
  for (; m >= Tokens; m -= Tokens) {
    multiply_rows<Elements, Rows, Tokens>(rows, row_stride, tokens, out);
    tokens.x += Tokens * tokens.k;
    tokens.sums += Tokens * tokens.sum_stride;
    out.data += Tokens * out.stride;
  }
  if constexpr (Tokens > 1) {
    multiply_tokens<Elements, Rows, Tokens / 2>(rows, row_stride, m, tokens, out);
  }
}

/// Rows [first, last) of the product. The rows of a block lie far apart, so that each is one of
/// as many streams that run on from row to row: short rows side by side would share pages, of
/// which a core fetches ahead in one stream each.
template <WeightFormat kFormat>
HWY_INLINE void multiply_range(const WeightMatrix& weights,
                               int m,
                               const GemvTokens& tokens,
                               std::int64_t first,
                               std::int64_t last,
                               float* out) {
  using Elements = RowElements<kFormat>;
  const std::int64_t bytes = weights.row_bytes();
  const std::int64_t step = (last - first) / kGemvRows;
  for (std::int64_t row = first; row < first + step; ++row) {
    const RowsOut to{out + row, weights.n, step};
    multiply_tokens<Elements, kGemvRows>(weights.row(row), step * bytes, m, tokens, to);
  }
  for (std::int64_t row = first + kGemvRows * step; row < last; ++row) {
    multiply_tokens<Elements, 1>(weights.row(row), bytes, m, tokens, {out + row, weights.n, 1});
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kvfathom::kernels
HWY_AFTER_NAMESPACE();

#endif
