// Dense systems in double for the offline fits, by OpenBLAS's LAPACK.
#pragma once

#include <cstddef>
#include <vector>

namespace kvfathom::kernels {

/// Row-major, in double.
struct DenseMatrix {
  DenseMatrix() = default;
  DenseMatrix(int n_rows, int n_columns)
      : rows(n_rows), columns(n_columns), values(static_cast<std::size_t>(n_rows) * n_columns) {}
  double& at(int row, int column) {
    return values[static_cast<std::size_t>(row) * columns + column];
  }
  [[nodiscard]] double at(int row, int column) const {
    return values[static_cast<std::size_t>(row) * columns + column];
  }

  int rows = 0;
  int columns = 0;
  std::vector<double> values;
};

/// a^T b, a [n, k], b [n, m].
[[nodiscard]] DenseMatrix transposed_product(const DenseMatrix& a, const DenseMatrix& b);
/// a b.
[[nodiscard]] DenseMatrix dense_product(const DenseMatrix& a, const DenseMatrix& b);
/// a^-1 b of a square a, by LU with row exchanges. Throws UnsupportedShape where a is singular.
[[nodiscard]] DenseMatrix solve_square(const DenseMatrix& a, const DenseMatrix& b);
/// The x that minimises |a x - b|^2 + lambda |x|^2, by the normal equations; with lambda = 0 a
/// penalty of rounding's size keeps them definite.
[[nodiscard]] DenseMatrix solve_ridge(const DenseMatrix& a, const DenseMatrix& b, double lambda);

/// Share of the variance of each column of `b` that `a x + offset` explains, averaged over the
/// columns: 1 is perfect, 0 as good as the mean. Columns that do not vary are left out.
[[nodiscard]] double mean_r_squared(const DenseMatrix& a,
                                    const DenseMatrix& x,
                                    const std::vector<double>& offset,
                                    const DenseMatrix& b);

}  // namespace kvfathom::kernels
