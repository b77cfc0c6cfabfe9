// The inner loops of CPU decode attention for one Highway target: scores of a few rows for one or
// two heads, the softmax of a tile, and the weighted sum of a few rows.
#if defined(KVFATHOM_KERNELS_DECODE_ATTENTION_CPU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVFATHOM_KERNELS_DECODE_ATTENTION_CPU_INL_H_
#undef KVFATHOM_KERNELS_DECODE_ATTENTION_CPU_INL_H_
#else
#define KVFATHOM_KERNELS_DECODE_ATTENTION_CPU_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <limits>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/common/kv_rows-inl.h"
#include "kernels/decode_attention/decode_attention_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

/// Rows whose scores are summed side by side.
constexpr int kScoreRows = 4;

#if HWY_TARGET == HWY_SCALAR
inline void store_sums(
    FloatTag, FloatVector a, FloatVector b, FloatVector c, FloatVector d, float* out) {
  out[0] = hn::GetLane(a), out[1] = hn::GetLane(b);
  out[2] = hn::GetLane(c), out[3] = hn::GetLane(d);
}
#else
/// Adds the 4-float blocks of a vector.
template <typename Tag>
inline void store_block_sum(Tag tag, hn::Vec<Tag> v, float* out) {
  if constexpr (hn::MaxLanes(Tag()) > 4) {
    const hn::Half<Tag> half;
    store_block_sum(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)), out);
  } else {
    hn::StoreU(v, tag, out);
  }
}
/// out[0..3] = the sums of the lanes of a, b, c and d: a transposition, which costs half of four
/// separate reductions.
inline void store_sums(
    FloatTag f32, FloatVector a, FloatVector b, FloatVector c, FloatVector d, float* out) {
  const hn::Repartition<std::uint64_t, FloatTag> pair;
  const auto ab = hn::Add(hn::InterleaveLower(f32, a, b), hn::InterleaveUpper(f32, a, b));
  const auto cd = hn::Add(hn::InterleaveLower(f32, c, d), hn::InterleaveUpper(f32, c, d));
  const auto ab2 = hn::BitCast(pair, ab);
  const auto cd2 = hn::BitCast(pair, cd);
  const auto abcd = hn::Add(hn::BitCast(f32, hn::InterleaveLower(pair, ab2, cd2)),
                            hn::BitCast(f32, hn::InterleaveUpper(pair, ab2, cd2)));
  store_block_sum(f32, abcd, out);
}
#endif

/// scores[h * score_stride + r] = q_h . row_r for `Heads` heads and kScoreRows rows of type `Row`.
template <typename Row, int Heads>
HWY_NOINLINE void score_rows(
    int head_dim, const float* q, const RowAt* rows, float* scores, int score_stride) {
  const FloatTag f32;
  FloatVector sums[Heads][kScoreRows];
  for (auto& of_head : sums) {
    for (FloatVector& sum : of_head) {
      sum = hn::Zero(f32);
    }
  }
  const int lanes = static_cast<int>(hn::Lanes(f32));
  for (int i = 0; i < head_dim; i += Row::kVectors * lanes) {
    FloatVector k[kScoreRows][Row::kVectors];
    for (int r = 0; r < kScoreRows; ++r) {
      Row::load(rows[r], i, k[r]);
    }
    for (int h = 0; h < Heads; ++h) {
      for (int j = 0; j < Row::kVectors; ++j) {
        const FloatVector x = hn::Load(f32, q + h * head_dim + i + j * lanes);
        for (int r = 0; r < kScoreRows; ++r) {
          sums[h][r] = hn::MulAdd(x, k[r][j], sums[h][r]);
        }
      }
    }
  }
  for (int h = 0; h < Heads; ++h) {
    store_sums(f32, sums[h][0], sums[h][1], sums[h][2], sums[h][3], scores + h * score_stride);
  }
}

/// out_h[i ..] += sum_r weights[h * weight_stride + r] * row_r[i ..] for `Heads` heads and
/// `Vectors` vectors of columns at a time, then for what is left with fewer.
template <typename Row, int Heads, int Vectors>
HWY_NOINLINE void add_rows(int head_dim,
                           int i,
                           int n_rows,
                           const float* weights,
                           int weight_stride,
                           const RowAt* rows,
                           float* out) {
  const FloatTag f32;
  const int lanes = static_cast<int>(hn::Lanes(f32));
  for (; i + Vectors * lanes <= head_dim; i += Vectors * lanes) {
    FloatVector sums[Heads][Vectors];
    for (int h = 0; h < Heads; ++h) {
      for (int j = 0; j < Vectors; ++j) {
        sums[h][j] = hn::Load(f32, out + h * head_dim + i + j * lanes);
      }
    }
    for (int r = 0; r < n_rows; ++r) {
      FloatVector weight[Heads];
      for (int h = 0; h < Heads; ++h) {
        weight[h] = hn::Set(f32, weights[h * weight_stride + r]);
      }
      for (int j = 0; j < Vectors; j += Row::kVectors) {
        FloatVector v[Row::kVectors];
        Row::load(rows[r], i + j * lanes, v);
        for (int h = 0; h < Heads; ++h) {
          for (int l = 0; l < Row::kVectors; ++l) {
            sums[h][j + l] = hn::MulAdd(weight[h], v[l], sums[h][j + l]);
          }
        }
      }
    }
    for (int h = 0; h < Heads; ++h) {
      for (int j = 0; j < Vectors; ++j) {
        hn::Store(sums[h][j], f32, out + h * head_dim + i + j * lanes);
      }
    }
  }
  if constexpr (Vectors > Row::kVectors) {
    add_rows<Row, Heads, Vectors / 2>(head_dim, i, n_rows, weights, weight_stride, rows, out);
  }
}

inline void multiply_values(int n, const float* factors, float* values) {
  const FloatTag f32;
  for (int i = 0; i < n; i += static_cast<int>(hn::Lanes(f32))) {
    hn::Store(hn::Mul(hn::Load(f32, values + i), hn::LoadU(f32, factors + i)), f32, values + i);
  }
}

inline void scale_values(int n, float factor, float* values) {
  const FloatTag f32;
  for (int i = 0; i < n; i += static_cast<int>(hn::Lanes(f32))) {
    hn::Store(hn::Mul(hn::Load(f32, values + i), hn::Set(f32, factor)), f32, values + i);
  }
}

/// Turns n scores into weights relative to the new maximum, in place; returns what the sums so far
/// must be multiplied by. There is room for one more vector after the scores.
inline float softmax_tile(int n, float* scores, SoftmaxState& state) {
  const FloatTag f32;
  const int lanes = static_cast<int>(hn::Lanes(f32));
  std::fill(scores + n, scores + n + lanes, -std::numeric_limits<float>::infinity());
  FloatVector largest = hn::Set(f32, state.max);
  for (int t = 0; t < n; t += lanes) {
    largest = hn::Max(largest, hn::Load(f32, scores + t));
  }
  const float max = hn::GetLane(hn::MaxOfLanes(f32, largest));
  const FloatVector subtracted = hn::Set(f32, max);
  FloatVector sum = hn::Zero(f32);
  for (int t = 0; t < n; t += lanes) {
    const FloatVector weight = hn::Exp(f32, hn::Sub(hn::Load(f32, scores + t), subtracted));
    hn::Store(weight, f32, scores + t);
    sum = hn::Add(sum, weight);
  }
  const float correction = std::exp(state.max - max);
  state.max = max;
  state.sum = state.sum * correction + hn::GetLane(hn::SumOfLanes(f32, sum));
  return correction;
}

}  // namespace
}  // namespace kvfathom::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
