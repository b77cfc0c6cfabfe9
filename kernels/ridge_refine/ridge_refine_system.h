// The dual system of the V step: its matrix, Cholesky factor and solution. Device code.
#pragma once

#include "kernels/ridge_refine/ridge_refine_attention.h"

namespace kvfathom::kernels::ridge {

/// As WeightsAlongDepth, without the tokens that may not be edited.
struct MovableWeights {
  RidgeRefineParams p;
  WeightsAlongDepth weights;
  SIMT_DEVICE Quad operator()(int index, int depth) const {
    Quad quad = weights(index, depth);
    SIMT_UNROLL for (int j = 0; j < 4; ++j) {
      const bool counts = depth + j < weights.kept && movable(p, depth + j);
      quad.x[j] = counts ? quad.x[j] : 0.0F;
    }
    return quad;
  }
};

/// Lower triangle of W^1/2 A A^T W^1/2 + lambda I; grid: column tile, row tile, problem.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) gram_matrix(RidgeRefineParams p, Workspace w) {
  const int column0 = static_cast<int>(simt::block_idx().x) * kTile;
  const int row0 = static_cast<int>(simt::block_idx().y) * kTile;
  if (column0 > row0) {
    return;
  }
  const int kept = n_kept(p);
  const float* weights = of_problem(w.weights, static_cast<std::int64_t>(p.n_rows) * w.n_kept4);
  float sums[4][4] = {};
  product<true, true>(sums,
                      kept,
                      simt::shared_memory<float>(),
                      MovableWeights{p, {weights, row0, p.n_rows, kept, w.n_kept4}},
                      WeightsAlongDepth{weights, column0, p.n_rows, kept, w.n_kept4});
  float* gram = of_problem(w.gram, static_cast<std::int64_t>(p.n_rows) * w.n_rows4);
  SIMT_UNROLL for (int i = 0; i < 4; ++i) {
    const int row = row0 + first_row() + i;
    SIMT_UNROLL for (int j = 0; j < 4; ++j) {
      const int column = column0 + first_column() + j;
      if (row < p.n_rows && column <= row) {
        const float scale =
            sqrtf(simt::ld_index(p.row_weights + row) * simt::ld_index(p.row_weights + column));
        simt::st(gram + static_cast<std::int64_t>(row) * w.n_rows4 + column,
                 sums[i][j] * scale + (row == column ? p.settings.lambda_v : 0.0F));
      }
    }
  }
}

SIMT_DEVICE int packed(int row, int column) {
  return row * (row + 1) / 2 + column;
}
constexpr std::size_t packed_factor_bytes(int n_rows) {
  return static_cast<std::size_t>(n_rows) * (n_rows + 1) / 2 * sizeof(float);
}

/// Cholesky factor in place, for systems whose triangle fits shared memory: right-looking, a column
/// at a time; grid: 1, 1, problem.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) factor_in_shared(RidgeRefineParams p, Workspace w) {
  constexpr int kWarps = Threads / simt::kWarpSize;
  auto* factor = simt::shared_memory<float>();
  float* gram = of_problem(w.gram, static_cast<std::int64_t>(p.n_rows) * w.n_rows4);
  const int thread = static_cast<int>(simt::thread_idx().x);
  const int warp = thread / simt::kWarpSize;
  for (int row = warp; row < p.n_rows; row += kWarps) {
    for (int column = simt::lane_id(); column <= row; column += simt::kWarpSize) {
      factor[packed(row, column)] =
          simt::ld(gram + static_cast<std::int64_t>(row) * w.n_rows4 + column);
    }
  }
  int failed = 0;
  for (int pivot = 0; pivot < p.n_rows; ++pivot) {
    simt::syncblock();  // the column is up to date
    const float square = factor[packed(pivot, pivot)];
    if (!(square > 0.0F)) {
      failed = pivot + 1;  // every thread read the same value
      break;
    }
    const float root = sqrtf(square);
    simt::syncblock();  // all have read the pivot
    for (int row = pivot + thread; row < p.n_rows; row += Threads) {
      factor[packed(row, pivot)] = row == pivot ? root : factor[packed(row, pivot)] / root;
    }
    simt::syncblock();  // the column is final
    for (int row = pivot + 1 + warp; row < p.n_rows; row += kWarps) {
      for (int column = pivot + 1 + simt::lane_id(); column <= row; column += simt::kWarpSize) {
        factor[packed(row, column)] -= factor[packed(row, pivot)] * factor[packed(column, pivot)];
      }
    }
  }
  for (int row = warp; row < p.n_rows; row += kWarps) {  // every column ended with a barrier
    for (int column = simt::lane_id(); column <= row; column += simt::kWarpSize) {
      simt::st(gram + static_cast<std::int64_t>(row) * w.n_rows4 + column,
               factor[packed(row, column)]);
    }
  }
  if (thread == 0) {
    simt::st(&(p.outcome + problem())->failed_pivot, failed);
  }
}

inline constexpr int kPanel = 16;  // columns that factor_in_global finishes at a time
constexpr std::size_t panel_bytes(int n_rows) {
  return static_cast<std::size_t>(n_rows) * (kPanel + 1) * sizeof(float);
}

/// Factorises the panel in shared memory, rows [first, n) by kPanel columns that start at `first`.
/// Returns 0, or 1 + the column of a pivot that is not positive.
template <int Threads>
SIMT_DEVICE int factor_panel(float* panel, int first, int n) {
  constexpr int kPitchPanel = kPanel + 1;
  const int columns = n - first < kPanel ? n - first : kPanel;
  for (int column = 0; column < columns; ++column) {
    simt::syncblock();  // the column is up to date
    const float square = panel[column * kPitchPanel + column];
    if (!(square > 0.0F)) {
      return first + column + 1;
    }
    const float root = sqrtf(square);
    simt::syncblock();  // all have read the pivot
    for (int row = column + static_cast<int>(simt::thread_idx().x); row < n - first;
         row += Threads) {
      float* here = panel + row * kPitchPanel;
      here[column] = row == column ? root : here[column] / root;
    }
    simt::syncblock();  // the column is final
    for (int row = column + 1 + static_cast<int>(simt::thread_idx().x) / kPanel; row < n - first;
         row += Threads / kPanel) {
      const int later = static_cast<int>(simt::thread_idx().x) % kPanel;
      if (later > column && later < columns && later <= row) {
        panel[row * kPitchPanel + later] -=
            panel[row * kPitchPanel + column] * panel[later * kPitchPanel + column];
      }
    }
  }
  return 0;
}

/// Cholesky factor in place, for any n_rows whose panel fits shared memory: left-looking, so that
/// each panel is written once; grid: 1, 1, problem.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) factor_in_global(RidgeRefineParams p, Workspace w) {
  constexpr int kPitchPanel = kPanel + 1;
  auto* panel = simt::shared_memory<float>();
  float* gram = of_problem(w.gram, static_cast<std::int64_t>(p.n_rows) * w.n_rows4);
  const int thread = static_cast<int>(simt::thread_idx().x);
  const int column = thread % kPanel;
  int failed = 0;
  for (int first = 0; first < p.n_rows && failed == 0; first += kPanel) {
    for (int row = thread / kPanel; row < p.n_rows - first; row += Threads / kPanel) {
      if (column > row || first + column >= p.n_rows) {
        continue;
      }
      const float* left = gram + static_cast<std::int64_t>(first + row) * w.n_rows4;
      const float* above = gram + static_cast<std::int64_t>(first + column) * w.n_rows4;
      float sum = simt::ld(left + first + column);
      for (int before = 0; before < first; before += 4) {
        const Quad a = ld_quad(left + before);
        const Quad b = ld_quad(above + before);
        SIMT_UNROLL for (int j = 0; j < 4; ++j) {
          sum -= a.x[j] * b.x[j];
        }
      }
      panel[row * kPitchPanel + column] = sum;
    }
    failed = factor_panel<Threads>(panel, first, p.n_rows);
    for (int row = thread / kPanel; row < p.n_rows - first; row += Threads / kPanel) {
      if (column <= row && first + column < p.n_rows) {
        simt::st(gram + static_cast<std::int64_t>(first + row) * w.n_rows4 + first + column,
                 panel[row * kPitchPanel + column]);
      }
    }
    simt::syncblock();  // the next panel reads this one from memory, and takes its place
  }
  if (thread == 0) {
    simt::st(&(p.outcome + problem())->failed_pivot, failed);
  }
}

constexpr std::size_t solve_bytes(int n_rows, int n_columns) {
  return static_cast<std::size_t>(n_rows) * n_columns * sizeof(float);
}

/// dual = (L L^T)^-1 W^1/2 residual for n_columns of its columns, which stand in shared memory;
/// grid: column group, 1, problem.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads)
    solve_factored(RidgeRefineParams p, Workspace w, int n_columns) {
  auto* x = simt::shared_memory<float>();  // [row][column of the group]
  const int n = p.n_rows;
  const float* factor = of_problem(w.gram, static_cast<std::int64_t>(n) * w.n_rows4);
  const std::int64_t n_out = static_cast<std::int64_t>(n) * p.head_dim;
  const int thread = static_cast<int>(simt::thread_idx().x);
  const int lane = thread % n_columns;
  const int first_row_of_thread = thread / n_columns;
  const int row_step = Threads / n_columns;
  const int column = static_cast<int>(simt::block_idx().x) * n_columns + lane;
  const bool inside = column < p.head_dim;

  for (int row = first_row_of_thread; row < n; row += row_step) {
    const std::int64_t at = static_cast<std::int64_t>(row) * p.head_dim + column;
    x[row * n_columns + lane] = inside ? sqrtf(simt::ld_index(p.row_weights + row)) *
                                             simt::ld(of_problem(w.residual, n_out) + at)
                                       : 0.0F;
  }
  for (int pivot = 0; pivot < n; ++pivot) {
    simt::syncblock();  // x[pivot] has all its updates but the division
    const float solved = x[pivot * n_columns + lane] /
                         simt::ld(factor + static_cast<std::int64_t>(pivot) * w.n_rows4 + pivot);
    for (int row = pivot + 1 + first_row_of_thread; row < n; row += row_step) {
      x[row * n_columns + lane] -=
          simt::ld(factor + static_cast<std::int64_t>(row) * w.n_rows4 + pivot) * solved;
    }
    simt::syncblock();  // all have read x[pivot]
    if (first_row_of_thread == 0) {
      x[pivot * n_columns + lane] = solved;
    }
  }
  for (int pivot = n - 1; pivot >= 0; --pivot) {
    simt::syncblock();
    const float* row_of_factor = factor + static_cast<std::int64_t>(pivot) * w.n_rows4;
    const float solved = x[pivot * n_columns + lane] / simt::ld(row_of_factor + pivot);
    for (int row = first_row_of_thread; row < pivot; row += row_step) {
      x[row * n_columns + lane] -= simt::ld(row_of_factor + row) * solved;
    }
    if (first_row_of_thread == 0 && inside) {
      const std::int64_t at = static_cast<std::int64_t>(pivot) * p.head_dim + column;
      simt::st(of_problem(w.dual, n_out) + at, solved);
    }
  }
}

}  // namespace kvfathom::kernels::ridge
