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

/// Rows of a panel. OpenBLAS packs the columns of `a` that a panel meets again for each panel, so
/// many tokens want many rows; the fewer tokens, the more of the time goes to the panel itself,
/// which had better stay in a near cache. Measured (docs/performance.md): 512 KiB for 16 and 32
/// tokens, up to 8 MiB for 512.
std::int64_t panel_rows(int m) {
  return std::clamp<std::int64_t>(std::int64_t{8} * m, 256, 4096);
}

}  // namespace

void sgemm(
    const SgemmShape& shape, ConstMatrixF32 a, ConstMatrixF32 b, MatrixF32 c, int n_threads) {
  use_blas_threads(n_threads_or_all(n_threads));
  call_sgemm(shape, a, b, c);
}

void sgemm_by_panels(
    int m, int n, int k, ConstMatrixF32 a, const WidenPanel& widen, MatrixF32 c, int n_threads) {
  use_blas_threads(1);  // the threads are ours: each multiplies its own panels
  parallel_shares(n_threads_or_all(n_threads), n, [&](int, std::int64_t first, std::int64_t last) {
    const std::int64_t rows = std::min(panel_rows(m), last - first);
    // Not zeroed: that alone would cost a tenth of a product with few tokens.
    const auto floats = std::make_unique_for_overwrite<float[]>(
        static_cast<std::size_t>(rows * std::min(k, kPanelColumns)));
    for (WeightPanel panel{.first_row = first}; panel.first_row < last; panel.first_row += rows) {
      panel.n_rows = std::min(rows, last - panel.first_row);
      // OpenBLAS itself cuts k into such slices, so adding to c slice by slice costs nothing more.
      for (panel.first_column = 0; panel.first_column < k; panel.first_column += kPanelColumns) {
        panel.n_columns = std::min<std::int64_t>(kPanelColumns, k - panel.first_column);
        widen(panel, floats.get());
        call_sgemm(SgemmShape{.m = m,
                              .n = static_cast<int>(panel.n_rows),
                              .k = static_cast<int>(panel.n_columns),
                              .beta = panel.first_column == 0 ? 0.0F : 1.0F,
                              .b_transposed = Transposed::yes},
                   ConstMatrixF32{a.data + panel.first_column, a.stride},
                   ConstMatrixF32{floats.get(), panel.n_columns},
                   MatrixF32{c.data + panel.first_row, c.stride});
      }
    }
  });
}

}  // namespace kvfathom::kernels
