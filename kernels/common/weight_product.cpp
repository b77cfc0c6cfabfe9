#include "kernels/common/weight_product.h"

#include <vector>

#include "kernels/common/blas.h"
#include "kernels/common/gemv_tokens.h"
#include "kernels/common/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/common/weight_product.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/common/gemv_rows-inl.h"
#include "kernels/common/widen-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels {
namespace HWY_NAMESPACE {

void widen_bf16_values(const std::uint16_t* from, std::int64_t n, float* to) {
  widen_bf16(from, n, to);
}
void widen_f16_values(const std::uint16_t* from, std::int64_t n, float* to) {
  widen_f16(from, n, to);
}
void narrow_bf16_values(const float* from, std::int64_t n, std::uint16_t* to) {
  narrow_bf16(from, n, to);
}
void widen_row_part(
    WeightFormat format, const std::byte* row, std::int64_t first, std::int64_t count, float* to) {
  widen_part(format, row, first, count, to);
}

/// The sums of each group of x [m, k], `stride` of them a row.
void sum_groups(const float* x, int m, std::int64_t k, float* sums, std::int64_t stride) {
  const FloatTag floats;
  for (int token = 0; token < m; ++token) {
    for (std::int64_t group = 0; group < k / kGroup; ++group) {
      const float* from = x + token * k + group * kGroup;
      auto sum = hn::LoadU(floats, from);
      for (std::size_t i = hn::Lanes(floats); i < kGroup; i += hn::Lanes(floats)) {
        sum = hn::Add(sum, hn::LoadU(floats, from + i));
      }
      sums[token * stride + group] = hn::GetLane(hn::SumOfLanes(floats, sum));
    }
  }
}

void gemv_rows(const WeightMatrix& weights,
               int m,
               const GemvTokens& tokens,
               std::int64_t first,
               std::int64_t last,
               float* out) {
  switch (weights.format) {
    case WeightFormat::f16:
      return multiply_range<WeightFormat::f16>(weights, m, tokens, first, last, out);
    case WeightFormat::bf16:
      return multiply_range<WeightFormat::bf16>(weights, m, tokens, first, last, out);
    case WeightFormat::q8_0:
      return multiply_range<WeightFormat::q8_0>(weights, m, tokens, first, last, out);
    case WeightFormat::q4_0:
      return multiply_range<WeightFormat::q4_0>(weights, m, tokens, first, last, out);
    case WeightFormat::q4_k:
      return multiply_range<WeightFormat::q4_k>(weights, m, tokens, first, last, out);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kvfathom::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvfathom::kernels {

HWY_EXPORT(widen_bf16_values);
HWY_EXPORT(widen_f16_values);
HWY_EXPORT(narrow_bf16_values);
HWY_EXPORT(widen_row_part);
HWY_EXPORT(sum_groups);
HWY_EXPORT(gemv_rows);

void widen_weights(
    WeightFormat format, const std::byte* row, std::int64_t first, std::int64_t count, float* to) {
  HWY_DYNAMIC_DISPATCH(widen_row_part)(format, row, first, count, to);
}

void widen_activations(WeightFormat weights, const std::uint16_t* from, std::int64_t n, float* to) {
  if (weights == WeightFormat::bf16) {
    HWY_DYNAMIC_DISPATCH(widen_bf16_values)(from, n, to);
  } else {
    HWY_DYNAMIC_DISPATCH(widen_f16_values)(from, n, to);
  }
}

void narrow_activations(WeightFormat weights,
                        const float* from,
                        std::int64_t n,
                        std::uint16_t* to) {
  if (weights == WeightFormat::bf16) {
    HWY_DYNAMIC_DISPATCH(narrow_bf16_values)(from, n, to);
    return;
  }
  std::transform(from, from + n, to, [](float value) { return to_f16(value).bits; });
}

namespace {

/// Each thread reads its rows of weights once, as stored.
void few_times_weights(
    const WeightMatrix& weights, int m, const float* x, float* out, int n_threads) {
  const std::int64_t stride = gemv_sum_stride(weights);
  std::vector<float> sums(static_cast<std::size_t>(m * stride));
  if (stride > 0) {
    HWY_DYNAMIC_DISPATCH(sum_groups)(x, m, weights.k, sums.data(), stride);
  }
  const GemvTokens tokens{x, weights.k, sums.data(), stride};
  parallel_shares(n_threads, weights.n, [&](int, std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(gemv_rows)(weights, m, tokens, first, last, out);
  });
}

}  // namespace

void times_weights(const WeightMatrix& weights, int m, const float* x, float* out, int n_threads) {
  require_whole_blocks(weights, "weights");
  if (m <= kLargestGemvRows) {
    few_times_weights(weights, m, x, out, n_threads);
    return;
  }
  const auto widen = [&](const WeightPanel& panel, float* to) {
    for (std::int64_t row = 0; row < panel.n_rows; ++row) {
      widen_weights(weights.format,
                    weights.row(panel.first_row + row),
                    panel.first_column,
                    panel.n_columns,
                    to + row * panel.n_columns);
    }
  };
  sgemm_by_panels(m,
                  static_cast<int>(weights.n),
                  static_cast<int>(weights.k),
                  ConstMatrixF32{x, weights.k},
                  widen,
                  MatrixF32{out, weights.n},
                  n_threads);
}

}  // namespace kvfathom::kernels
#endif
