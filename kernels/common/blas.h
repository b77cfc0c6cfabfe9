// OpenBLAS behind one header: single-precision products with the number of threads said at every
// call, and weights of any stored format, widened panel by panel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace kvfathom::kernels {

/// Whether the second operand is stored [n, k] (weights as checkpoints have them) or [k, n].
enum class Transposed : std::uint8_t { no, yes };

/// A row-major matrix and the elements from one row to the next.
struct MatrixF32 {
  float* data = nullptr;
  std::int64_t stride = 0;
};
struct ConstMatrixF32 {
  const float* data = nullptr;
  std::int64_t stride = 0;
};

/// c[m, n] = alpha a[m, k] b + beta c, where b is [k, n], or [n, k] if transposed. n_threads = 0:
/// all.
struct SgemmShape {
  int m = 0, n = 0, k = 0;
  float alpha = 1.0F, beta = 0.0F;
  Transposed b_transposed = Transposed::no;
};
void sgemm(const SgemmShape& shape, ConstMatrixF32 a, ConstMatrixF32 b, MatrixF32 c, int n_threads);

/// Rows [first_row, first_row + n_rows) of stored weights, columns [first_column, first_column +
/// n_columns) of each.
struct WeightPanel {
  std::int64_t first_row = 0, n_rows = 0;
  std::int64_t first_column = 0, n_columns = 0;
};
/// Columns of a panel start and end at multiples of this (or at k), so that they hold whole blocks
/// of any format.
inline constexpr int kPanelColumns = 512;
/// Widens a panel to floats, one row after the other.
using WidenPanel = std::function<void(const WeightPanel& panel, float* to)>;

/// c[m, n] = a[m, k] w^T for weights w [n, k] of any stored format. Each thread widens a panel of
/// its rows into its own cache and multiplies it, so that the widened weights never reach memory.
void sgemm_by_panels(
    int m, int n, int k, ConstMatrixF32 a, const WidenPanel& widen, MatrixF32 c, int n_threads);

}  // namespace kvfathom::kernels
