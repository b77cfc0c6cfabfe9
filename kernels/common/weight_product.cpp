#include "kernels/common/weight_product.h"

#include <algorithm>

#include "kernels/common/blas.h"
#include "kernels/common/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/common/weight_product.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

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

/// sums (four vectors of kMostLanes) += a * b, elementwise; n is a multiple of 32, or the rest of a
/// row.
constexpr int kMostLanes = 16;
HWY_INLINE void add_products(const float* a, const float* b, std::int64_t n, float* sums) {
  const FloatTag floats;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(floats));
  auto s0 = hn::Load(floats, sums);
  auto s1 = hn::Load(floats, sums + kMostLanes);
  auto s2 = hn::Load(floats, sums + 2 * kMostLanes);
  auto s3 = hn::Load(floats, sums + 3 * kMostLanes);
  std::int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::MulAdd(hn::LoadU(floats, a + i), hn::LoadU(floats, b + i), s0);
    s1 = hn::MulAdd(hn::LoadU(floats, a + i + lanes), hn::LoadU(floats, b + i + lanes), s1);
    s2 = hn::MulAdd(hn::LoadU(floats, a + i + 2 * lanes), hn::LoadU(floats, b + i + 2 * lanes), s2);
    s3 = hn::MulAdd(hn::LoadU(floats, a + i + 3 * lanes), hn::LoadU(floats, b + i + 3 * lanes), s3);
  }
  hn::Store(s0, floats, sums);
  hn::Store(s1, floats, sums + kMostLanes);
  hn::Store(s2, floats, sums + 2 * kMostLanes);
  hn::Store(s3, floats, sums + 3 * kMostLanes);
  for (; i < n; ++i) {
    sums[0] += a[i] * b[i];
  }
}

/// The same for four rows b, `stride` apart, whose sums follow each other: `a` is loaded once.
HWY_INLINE void add_products_of_four(
    const float* a, const float* b, std::int64_t stride, std::int64_t n, float* sums) {
  const FloatTag floats;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(floats));
  constexpr int kNext = 4 * kMostLanes;
  auto s0 = hn::Load(floats, sums);
  auto s1 = hn::Load(floats, sums + kNext);
  auto s2 = hn::Load(floats, sums + 2 * kNext);
  auto s3 = hn::Load(floats, sums + 3 * kNext);
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto of_a = hn::LoadU(floats, a + i);
    s0 = hn::MulAdd(of_a, hn::LoadU(floats, b + i), s0);
    s1 = hn::MulAdd(of_a, hn::LoadU(floats, b + stride + i), s1);
    s2 = hn::MulAdd(of_a, hn::LoadU(floats, b + 2 * stride + i), s2);
    s3 = hn::MulAdd(of_a, hn::LoadU(floats, b + 3 * stride + i), s3);
  }
  hn::Store(s0, floats, sums);
  hn::Store(s1, floats, sums + kNext);
  hn::Store(s2, floats, sums + 2 * kNext);
  hn::Store(s3, floats, sums + 3 * kNext);
  for (; i < n; ++i) {
    for (int row = 0; row < 4; ++row) {
      sums[row * kNext] += a[i] * b[row * stride + i];
    }
  }
}

HWY_INLINE float total(const float* sums) {
  const FloatTag floats;
  const auto upper =
      hn::Add(hn::Load(floats, sums + 2 * kMostLanes), hn::Load(floats, sums + 3 * kMostLanes));
  const auto lower = hn::Add(hn::Load(floats, sums), hn::Load(floats, sums + kMostLanes));
  return hn::GetLane(hn::SumOfLanes(floats, hn::Add(lower, upper)));
}

/// Rows [first, last) of the product: each stretch of weights is widened once, into the nearest
/// cache, and meets all rows of x there.
void gemv_rows(const WeightMatrix& weights,
               int m,
               const float* x,
               std::int64_t first,
               std::int64_t last,
               float* out) {
  constexpr std::int64_t kStretch = 512;
  HWY_ALIGN float widened[kStretch];
  HWY_ALIGN float sums[kLargestGemvRows][4 * kMostLanes];
  for (std::int64_t row = first; row < last; ++row) {
    std::fill_n(&sums[0][0], m * 4 * kMostLanes, 0.0F);
    for (std::int64_t k = 0; k < weights.k; k += kStretch) {
      const std::int64_t count = std::min(kStretch, weights.k - k);
      widen_part(weights.format, weights.row(row), k, count, widened);
      int token = 0;
      for (; token + 4 <= m; token += 4) {
        add_products_of_four(widened, x + token * weights.k + k, weights.k, count, sums[token]);
      }
      for (; token < m; ++token) {
        add_products(widened, x + token * weights.k + k, count, sums[token]);
      }
    }
    for (int token = 0; token < m; ++token) {
      out[token * weights.n + row] = total(sums[token]);
    }
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

void times_weights(const WeightMatrix& weights, int m, const float* x, float* out, int n_threads) {
  require_whole_blocks(weights, "weights");
  if (m <= kLargestGemvRows) {
    parallel_shares(n_threads, weights.n, [&](int, std::int64_t first, std::int64_t last) {
      HWY_DYNAMIC_DISPATCH(gemv_rows)(weights, m, x, first, last, out);
    });
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
