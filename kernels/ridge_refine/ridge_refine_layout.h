// Where the steps of a ridge refinement leave their results for each other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/ridge_refine/ridge_refine.h"

namespace kvfathom::kernels::ridge {

/// What conjugate gradients carry from one iteration to the next.
struct CgState {
  float residual_squared = 0.0F;
  float first_squared = 0.0F;
  std::int32_t iterations = 0;
  std::int32_t active = 0;
};

/// Scratch arrays, all per problem. `n_kept4` is kept_capacity rounded up to a multiple of 4, the
/// row length of everything that has a column per kept token; `n_rows4` likewise.
struct Workspace {
  int n_kept4 = 0, n_rows4 = 0, n_splits = 0;
  float* split_out = nullptr;  // [n_problems, n_rows, n_splits, head_dim]
  float* split_max_sum = nullptr;
  float* target = nullptr;    // [n_rows, head_dim] Y
  float* weights = nullptr;   // [n_rows, n_kept4] A
  float* products = nullptr;  // [n_rows, n_kept4] A times inner products, in the K step
  float* out = nullptr;       // [n_rows, head_dim] A V
  float* residual = nullptr;  // [n_rows, head_dim] Y - out
  float* gram = nullptr;      // [n_rows, n_rows4] lower triangle: the system, then its factor
  float* dual = nullptr;      // [n_rows, head_dim] u
  float* cg_residual = nullptr;
  float* cg_direction = nullptr;
  float* cg_image = nullptr;
  float* row_dots = nullptr;  // [n_rows] direction . out
  float* step = nullptr;      // [kept_capacity, head_dim] dV or dK
  float* norms = nullptr;     // [kNormParts, 2] |step|^2 and |base|^2 of a part
  CgState* cg = nullptr;
};
inline constexpr int kNormParts = 16;

/// Lays the arrays out from `memory`; returns the bytes. With null it only counts.
inline std::int64_t lay_out(Workspace& w,
                            const RidgeRefineParams& p,
                            int n_splits,
                            std::byte* memory) {
  std::int64_t at = 0;
  const auto take = [&](float*& array, std::int64_t per_problem) {
    array = memory == nullptr ? nullptr : reinterpret_cast<float*>(memory + at);
    const auto bytes = p.n_problems * per_problem * static_cast<std::int64_t>(sizeof(float));
    at += (bytes + 255) / 256 * 256;
  };
  w.n_kept4 = (p.kept_capacity + 3) / 4 * 4;
  w.n_rows4 = (p.n_rows + 3) / 4 * 4;
  w.n_splits = n_splits;
  const std::int64_t rows = p.n_rows;
  take(w.split_out, rows * n_splits * p.head_dim);
  take(w.split_max_sum, rows * n_splits * 2);
  for (float** array :
       {&w.target, &w.out, &w.residual, &w.dual, &w.cg_residual, &w.cg_direction, &w.cg_image}) {
    take(*array, rows * p.head_dim);
  }
  take(w.weights, rows * w.n_kept4);
  take(w.products, rows * w.n_kept4);
  take(w.gram, rows * w.n_rows4);
  take(w.row_dots, rows);
  take(w.step, static_cast<std::int64_t>(p.kept_capacity) * p.head_dim);
  take(w.norms, 2 * kNormParts);
  float* state = nullptr;
  take(state, static_cast<std::int64_t>(sizeof(CgState) / sizeof(float)));
  w.cg = reinterpret_cast<CgState*>(state);
  return at;
}

}  // namespace kvfathom::kernels::ridge
