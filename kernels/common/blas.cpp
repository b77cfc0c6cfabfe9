#include "kernels/common/blas.h"

#include <algorithm>
#include <memory>
#include <mutex>

#include <cblas.h>

#include "kernels/common/parallel.h"

namespace kvfathom::kernels {
namespace {

/// OpenBLAS keeps one number of threads for the whole process. Calls that want the same number run
/// side by side; the number changes only under the lock.
void use_blas_threads(int n_threads) {
  static std::mutex mutex;
  const std::scoped_lock lock(mutex);
  if (openblas_get_num_threads() != n_threads) {
    openblas_set_num_threads(n_threads);
  }
}

void call_sgemm(const SgemmShape& shape, ConstMatrixF32 a, ConstMatrixF32 b, MatrixF32 c) {
  cblas_sgemm(CblasRowMajor,
              CblasNoTrans,
              shape.b_transposed == Transposed::yes ? CblasTrans : CblasNoTrans,
              shape.m,
              shape.n,
              shape.k,
              shape.alpha,
              a.data,
              static_cast<int>(a.stride),
              b.data,
              static_cast<int>(b.stride),
              shape.beta,
              c.data,
              static_cast<int>(c.stride));
}

/// Rows of weights that one thread widens at a time. OpenBLAS packs `a` again for each panel, which
/// costs about 1/rows of the product: many rows for many tokens. Few tokens leave the time to the
/// weights, which then had better stay in the nearest cache: 1 MiB of floats.
std::int64_t panel_rows(int m, int n, int k, int n_threads) {
  constexpr std::int64_t kPanelFloats = 1 << 18;
  constexpr std::int64_t kMostRows = 1024;
  const std::int64_t rows =
      std::min(kMostRows, std::max<std::int64_t>(2 * m, kPanelFloats / std::max(k, 1)));
  const std::int64_t share = (n + n_threads - 1) / n_threads;
  return std::clamp<std::int64_t>(rows, 1, std::max<std::int64_t>(share, 1));
}

}  // namespace

void sgemm(
    const SgemmShape& shape, ConstMatrixF32 a, ConstMatrixF32 b, MatrixF32 c, int n_threads) {
  use_blas_threads(n_threads_or_all(n_threads));
  call_sgemm(shape, a, b, c);
}

void sgemm_by_panels(
    int m, int n, int k, ConstMatrixF32 a, const WidenRows& widen, MatrixF32 c, int n_threads) {
  const int threads = n_threads_or_all(n_threads);
  use_blas_threads(1);  // the threads are ours: each multiplies its own panels
  const std::int64_t rows = panel_rows(m, n, k, threads);
  parallel_shares(threads, n, [&](int, std::int64_t first, std::int64_t last) {
    // Not zeroed: that alone would cost a tenth of a product with few tokens.
    const auto panel = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(rows * k));
    for (std::int64_t row = first; row < last; row += rows) {
      const std::int64_t count = std::min(rows, last - row);
      widen(row, count, panel.get());
      call_sgemm(
          SgemmShape{.m = m, .n = static_cast<int>(count), .k = k, .b_transposed = Transposed::yes},
          a,
          ConstMatrixF32{panel.get(), k},
          MatrixF32{c.data + row, c.stride});
    }
  });
}

}  // namespace kvfathom::kernels
