#include "kernels/common/dense_solve.h"

#include <algorithm>
#include <cmath>
#include <string>

#include <cblas.h>

#include "kernels/common/error.h"

// LAPACK as OpenBLAS carries it: column-major, all arguments by address.
extern "C" {
void dgesv_(const int* n,
            const int* n_rhs,
            double* a,
            const int* lda,
            int* pivots,
            double* b,
            const int* ldb,
            int* info);
void dposv_(const char* triangle,
            const int* n,
            const int* n_rhs,
            double* a,
            const int* lda,
            double* b,
            const int* ldb,
            int* info);
}

namespace kvfathom::kernels {
namespace {

DenseMatrix transposed(const DenseMatrix& m) {
  DenseMatrix t(m.columns, m.rows);
  for (int row = 0; row < m.rows; ++row) {
    for (int column = 0; column < m.columns; ++column) {
      t.at(column, row) = m.at(row, column);
    }
  }
  return t;
}

void expect(bool holds, const char* what) {
  if (!holds) {
    throw UnsupportedShape(what);
  }
}

DenseMatrix product(const DenseMatrix& a, bool a_transposed, const DenseMatrix& b) {
  const int m = a_transposed ? a.columns : a.rows;
  const int k = a_transposed ? a.rows : a.columns;
  expect(k == b.rows, "matrices of a product do not fit");
  DenseMatrix c(m, b.columns);
  if (m == 0 || b.columns == 0 || k == 0) {
    return c;
  }
  cblas_dgemm(CblasRowMajor,
              a_transposed ? CblasTrans : CblasNoTrans,
              CblasNoTrans,
              m,
              b.columns,
              k,
              1.0,
              a.values.data(),
              a.columns,
              b.values.data(),
              b.columns,
              0.0,
              c.values.data(),
              c.columns);
  return c;
}

}  // namespace

DenseMatrix transposed_product(const DenseMatrix& a, const DenseMatrix& b) {
  return product(a, true, b);
}
DenseMatrix dense_product(const DenseMatrix& a, const DenseMatrix& b) {
  return product(a, false, b);
}

DenseMatrix solve_square(const DenseMatrix& a, const DenseMatrix& b) {
  expect(a.rows == a.columns && a.rows == b.rows, "a square system and its right-hand sides");
  DenseMatrix factor = transposed(a);  // column-major for LAPACK
  DenseMatrix x = transposed(b);
  std::vector<int> pivots(static_cast<std::size_t>(a.rows));
  int info = 0;
  dgesv_(&a.rows,
         &b.columns,
         factor.values.data(),
         &a.rows,
         pivots.data(),
         x.values.data(),
         &a.rows,
         &info);
  expect(info == 0, "the matrix is singular");
  return transposed(x);
}

DenseMatrix solve_ridge(const DenseMatrix& a, const DenseMatrix& b, double lambda) {
  expect(a.rows == b.rows, "samples of both sides of a fit");
  DenseMatrix gram = transposed_product(a, a);
  double largest = 0.0;
  for (int i = 0; i < gram.rows; ++i) {
    largest = std::max(largest, gram.at(i, i));
  }
  const double least = std::max(largest, 1e-300) * gram.rows * 1e-14;
  for (int i = 0; i < gram.rows; ++i) {
    gram.at(i, i) += std::max(lambda, least);
  }
  DenseMatrix x = transposed(transposed_product(a, b));
  int info = 0;
  dposv_("L",
         &gram.rows,
         &b.columns,
         gram.values.data(),
         &gram.rows,
         x.values.data(),
         &gram.rows,
         &info);
  expect(info == 0, "the normal equations are not definite");
  return transposed(x);
}

double mean_r_squared(const DenseMatrix& a,
                      const DenseMatrix& x,
                      const std::vector<double>& offset,
                      const DenseMatrix& b) {
  const DenseMatrix predicted = dense_product(a, x);
  double sum = 0.0;
  int n_counted = 0;
  for (int column = 0; column < b.columns; ++column) {
    double mean = 0.0;
    for (int row = 0; row < b.rows; ++row) {
      mean += b.at(row, column) / b.rows;
    }
    double residual = 0.0;
    double variance = 0.0;
    for (int row = 0; row < b.rows; ++row) {
      const double want = b.at(row, column);
      const double got = predicted.at(row, column) + (offset.empty() ? 0.0 : offset[column]);
      residual += (want - got) * (want - got);
      variance += (want - mean) * (want - mean);
    }
    if (variance > 0.0) {
      sum += 1.0 - residual / variance;
      ++n_counted;
    }
  }
  return n_counted > 0 ? sum / n_counted : 0.0;
}

}  // namespace kvfathom::kernels
