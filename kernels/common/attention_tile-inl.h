// Attention over one tile of tokens in float, vectorised: the inner loops of the CPU versions.
// Include only after "hwy/foreach_target.h".
#if defined(KVFATHOM_KERNELS_COMMON_ATTENTION_TILE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef KVFATHOM_KERNELS_COMMON_ATTENTION_TILE_INL_H
#undef KVFATHOM_KERNELS_COMMON_ATTENTION_TILE_INL_H
#else
#define KVFATHOM_KERNELS_COMMON_ATTENTION_TILE_INL_H
#endif

#include <algorithm>
#include <cmath>

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// At most 16 lanes: every width that kernels take is a multiple of 16.
using TileTag = hn::CappedTag<float, 16>;

/// scores[r][t] = q[r] . k[t] for Rows by Tokens at once: each vector loaded meets several.
template <int Rows, int Tokens>
HWY_INLINE void score_block(const float* q,
                            std::int64_t q_stride,
                            const float* k,
                            std::int64_t k_stride,
                            int dim,
                            float* scores,
                            std::int64_t score_stride) {
  const TileTag tag;
  const int lanes = static_cast<int>(hn::Lanes(tag));
  decltype(hn::Zero(tag)) sums[Rows][Tokens];
  for (auto& row : sums) {
    for (auto& sum : row) {
      sum = hn::Zero(tag);
    }
  }
  for (int i = 0; i < dim; i += lanes) {
    decltype(hn::Zero(tag)) keys[Tokens];
    for (int t = 0; t < Tokens; ++t) {
      keys[t] = hn::LoadU(tag, k + t * k_stride + i);
    }
    for (int r = 0; r < Rows; ++r) {
      const auto query = hn::LoadU(tag, q + r * q_stride + i);
      for (int t = 0; t < Tokens; ++t) {
        sums[r][t] = hn::MulAdd(query, keys[t], sums[r][t]);
      }
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int t = 0; t < Tokens; ++t) {
      scores[r * score_stride + t] = hn::GetLane(hn::SumOfLanes(tag, sums[r][t]));
    }
  }
}

template <int Rows>
HWY_INLINE void score_rows(const float* q,
                           std::int64_t q_stride,
                           const float* k,
                           std::int64_t k_stride,
                           int n_tokens,
                           int dim,
                           float* scores,
                           std::int64_t score_stride) {
  int t = 0;
  for (; t + 2 <= n_tokens; t += 2) {
    score_block<Rows, 2>(q, q_stride, k + t * k_stride, k_stride, dim, scores + t, score_stride);
  }
  if (t < n_tokens) {
    score_block<Rows, 1>(q, q_stride, k + t * k_stride, k_stride, dim, scores + t, score_stride);
  }
}

/// scores [n_rows, score_stride] of q [n_rows, q_stride] against k [n_tokens, k_stride].
HWY_INLINE void score_tile(const float* q,
                           std::int64_t q_stride,
                           int n_rows,
                           const float* k,
                           std::int64_t k_stride,
                           int n_tokens,
                           int dim,
                           float* scores,
                           std::int64_t score_stride) {
  int row = 0;
  for (; row + 4 <= n_rows; row += 4) {
    score_rows<4>(q + row * q_stride,
                  q_stride,
                  k,
                  k_stride,
                  n_tokens,
                  dim,
                  scores + row * score_stride,
                  score_stride);
  }
  for (; row < n_rows; ++row) {
    score_rows<1>(q + row * q_stride,
                  q_stride,
                  k,
                  k_stride,
                  n_tokens,
                  dim,
                  scores + row * score_stride,
                  score_stride);
  }
}

/// out[r] += sum_t weights[r][t] v[t] for Rows rows and two vectors of columns: the sums stay in
/// registers over all tokens of the tile.
template <int Rows>
HWY_INLINE void add_value_rows(const float* weights,
                               std::int64_t weight_stride,
                               const float* v,
                               std::int64_t v_stride,
                               int n_tokens,
                               int dim,
                               float* out,
                               std::int64_t out_stride) {
  const TileTag tag;
  const int lanes = static_cast<int>(hn::Lanes(tag));
  for (int i = 0; i < dim; i += 2 * lanes) {
    const int second = i + lanes < dim ? i + lanes : i;  // an odd vector at the end: twice the same
    decltype(hn::Zero(tag)) sums[Rows][2];
    for (int r = 0; r < Rows; ++r) {
      sums[r][0] = hn::LoadU(tag, out + r * out_stride + i);
      sums[r][1] = hn::LoadU(tag, out + r * out_stride + second);
    }
    for (int t = 0; t < n_tokens; ++t) {
      const auto v0 = hn::LoadU(tag, v + t * v_stride + i);
      const auto v1 = hn::LoadU(tag, v + t * v_stride + second);
      for (int r = 0; r < Rows; ++r) {
        const auto weight = hn::Set(tag, weights[r * weight_stride + t]);
        sums[r][0] = hn::MulAdd(weight, v0, sums[r][0]);
        sums[r][1] = hn::MulAdd(weight, v1, sums[r][1]);
      }
    }
    for (int r = 0; r < Rows; ++r) {
      hn::StoreU(sums[r][0], tag, out + r * out_stride + i);
      hn::StoreU(sums[r][1], tag, out + r * out_stride + second);
    }
  }
}
HWY_INLINE void add_values(const float* weights,
                           std::int64_t weight_stride,
                           int n_rows,
                           const float* v,
                           std::int64_t v_stride,
                           int n_tokens,
                           int dim,
                           float* out,
                           std::int64_t out_stride) {
  int row = 0;
  for (; row + 4 <= n_rows; row += 4) {
    add_value_rows<4>(weights + row * weight_stride,
                      weight_stride,
                      v,
                      v_stride,
                      n_tokens,
                      dim,
                      out + row * out_stride,
                      out_stride);
  }
  for (; row < n_rows; ++row) {
    add_value_rows<1>(weights + row * weight_stride,
                      weight_stride,
                      v,
                      v_stride,
                      n_tokens,
                      dim,
                      out + row * out_stride,
                      out_stride);
  }
}

/// Online softmax: the running maximum and sum of one row.
struct SoftmaxRow {
  float maximum = -INFINITY;
  float sum = 0.0F;
};

/// Takes the raw scores of a tile, of which tokens [first, last) are seen: turns them into weights,
/// zeros elsewhere up to a multiple of 16, and scales what the row's output [dim] holds so far.
HWY_INLINE void add_to_softmax(float* scores,
                               int first,
                               int last,
                               float softmax_scale,
                               SoftmaxRow& state,
                               float* out,
                               int dim) {
  const TileTag tag;
  const int lanes = static_cast<int>(hn::Lanes(tag));
  const int padded = (last + 15) / 16 * 16;
  for (int t = first; t < last; ++t) {
    scores[t] *= softmax_scale;
  }
  std::fill(scores, scores + first, -INFINITY);
  std::fill(scores + last, scores + padded, -INFINITY);
  auto maxima = hn::Set(tag, state.maximum);
  for (int t = 0; t < padded; t += lanes) {
    maxima = hn::Max(maxima, hn::LoadU(tag, scores + t));
  }
  const float maximum = hn::GetLane(hn::MaxOfLanes(tag, maxima));
  if (maximum == -INFINITY) {  // everything so far is masked
    std::fill(scores, scores + padded, 0.0F);
    return;
  }
  const auto largest = hn::Set(tag, maximum);
  auto sums = hn::Zero(tag);
  for (int t = 0; t < padded; t += lanes) {
    const auto weights = hn::Exp(tag, hn::Sub(hn::LoadU(tag, scores + t), largest));
    hn::StoreU(weights, tag, scores + t);
    sums = hn::Add(sums, weights);
  }
  const float shrink = std::exp(state.maximum - maximum);
  state.sum = state.sum * shrink + hn::GetLane(hn::SumOfLanes(tag, sums));
  state.maximum = maximum;
  if (shrink != 1.0F) {
    const auto factor = hn::Set(tag, shrink);
    for (int i = 0; i < dim; i += lanes) {
      hn::StoreU(hn::Mul(hn::LoadU(tag, out + i), factor), tag, out + i);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kvfathom::kernels
HWY_AFTER_NAMESPACE();

#endif
