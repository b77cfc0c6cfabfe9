// From dual to primal, the clip, and conjugate gradients of the K step. Device code.
#pragma once

#include "kernels/ridge_refine/ridge_refine_system.h"

namespace kvfathom::kernels::ridge {

/// Rows of weights or products as the depth: four tokens of one row, times w^1/2 where asked.
template <bool Weighted>
struct WeightsAsDepth {
  const float* rows;
  int first, n_rows, kept, pitch;
  const float* row_weights;
  SIMT_DEVICE Quad operator()(int index, int depth) const {
    const int token = first + index;
    if (depth >= n_rows || token >= kept) {
      return Quad{};
    }
    Quad quad = ld_quad(rows + static_cast<std::int64_t>(depth) * pitch + token);
    if constexpr (Weighted) {
      const float scale = sqrtf(simt::ld_index(row_weights + depth));
      SIMT_UNROLL for (int j = 0; j < 4; ++j) {
        quad.x[j] *= scale;
      }
    }
    return quad;
  }
};

/// step[token] = sum over rows of left[row][token] right[row], zero for guards. The V step has
/// the weights and the dual, the K step (Products) the products and the queries. Grid: column tile,
/// token tile, problem.
template <bool Products>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads) sum_over_rows(RidgeRefineParams p, Workspace w) {
  if (Products && simt::ld_index(&(w.cg + problem())->active) == 0) {
    return;
  }
  const int kept = n_kept(p);
  const int column0 = static_cast<int>(simt::block_idx().x) * kTile;
  const int token0 = static_cast<int>(simt::block_idx().y) * kTile;
  if (token0 >= kept) {
    return;
  }
  const std::int64_t n_weights = static_cast<std::int64_t>(p.n_rows) * w.n_kept4;
  const std::int64_t n_out = static_cast<std::int64_t>(p.n_rows) * p.head_dim;
  float sums[4][4] = {};
  if constexpr (Products) {
    product<false, false>(
        sums,
        p.n_rows,
        simt::shared_memory<float>(),
        WeightsAsDepth<false>{
            of_problem(w.products, n_weights), token0, p.n_rows, kept, w.n_kept4, nullptr},
        RowsAsDepth<Bf16>{of_problem(p.queries, n_out), p.n_rows, column0, p.head_dim});
  } else {
    product<false, false>(
        sums,
        p.n_rows,
        simt::shared_memory<float>(),
        WeightsAsDepth<true>{
            of_problem(w.weights, n_weights), token0, p.n_rows, kept, w.n_kept4, p.row_weights},
        RowsAsDepth<float>{of_problem(w.dual, n_out), p.n_rows, column0, p.head_dim});
  }
  float* step = of_problem(w.step, static_cast<std::int64_t>(p.kept_capacity) * p.head_dim);
  const int column = column0 + first_column();
  SIMT_UNROLL for (int i = 0; i < 4; ++i) {
    const int token = token0 + first_row() + i;
    if (token < kept && column < p.head_dim) {
      const bool moves = movable(p, token);
      SIMT_UNROLL for (int j = 0; j < 4; ++j) {
        sums[i][j] = moves ? sums[i][j] : 0.0F;
      }
      st_quad(step + static_cast<std::int64_t>(token) * p.head_dim + column, sums[i]);
    }
  }
}

/// |step|^2 and |base|^2 of one part of a problem's tokens; grid: part, 1, problem.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads)
    norms_of_step(RidgeRefineParams p, Workspace w, const Bf16* all_base) {
  const std::int64_t stride = static_cast<std::int64_t>(p.kept_capacity) * p.head_dim;
  const int n = n_kept(p) * p.head_dim;
  const float* step = of_problem(w.step, stride);
  const Bf16* base = of_problem(all_base, stride);
  const auto part = static_cast<int>(simt::block_idx().x);
  float squares[2] = {};
  for (int at = (part * Threads + static_cast<int>(simt::thread_idx().x)) * 4; at < n;
       at += kNormParts * Threads * 4) {
    const Quad s = ld_quad(step + at);
    const Quad b = ld_quad(base + at);
    SIMT_UNROLL for (int j = 0; j < 4; ++j) {
      squares[0] += s.x[j] * s.x[j];
      squares[1] += b.x[j] * b.x[j];
    }
  }
  auto* shared = simt::shared_memory<float>();
  SIMT_UNROLL for (int which = 0; which < 2; ++which) {
    const float sum = block_sum(squares[which], shared);
    if (simt::thread_idx().x == 0) {
      simt::st(of_problem(w.norms, 2 * kNormParts) + part * 2 + which, sum);
    }
  }
}

/// to = bf16(base + step), the step shortened to clip |base|; base alone where the step comes from
/// a system that could not be solved. Grid: part, 1, problem.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads)
    apply_step(RidgeRefineParams p, Workspace w, const Bf16* all_base, float clip, Bf16* all_to) {
  const std::int64_t stride = static_cast<std::int64_t>(p.kept_capacity) * p.head_dim;
  const int n = n_kept(p) * p.head_dim;
  const float* norms = of_problem(w.norms, 2 * kNormParts);
  float step_squared = 0.0F;
  float base_squared = 0.0F;
  for (int part = 0; part < kNormParts; ++part) {
    step_squared += simt::ld(norms + part * 2);
    base_squared += simt::ld(norms + part * 2 + 1);
  }
  const float limit = clip * sqrtf(base_squared);
  const float length = sqrtf(step_squared);
  float factor = length > limit ? limit / length : 1.0F;
  const bool failed = simt::ld_index(&(p.outcome + problem())->failed_pivot) != 0;
  if (!(length < INFINITY) || (failed && all_base == p.v_kept)) {
    factor = 0.0F;
  }
  const float* step = of_problem(w.step, stride);
  const Bf16* base = of_problem(all_base, stride);
  const int begin = static_cast<int>(simt::block_idx().x * Threads + simt::thread_idx().x) * 4;
  for (int at = begin; at < n; at += kNormParts * Threads * 4) {
    const Quad b = ld_quad(base + at);
    Quad s = ld_quad(step + at);
    SIMT_UNROLL for (int j = 0; j < 4; ++j) {
      s.x[j] = factor > 0.0F ? b.x[j] + factor * s.x[j] : b.x[j];
    }
    simt::st(reinterpret_cast<simt::U32x2*>(of_problem(all_to, stride) + at),
             simt::U32x2{simt::pack_bf16(s.x[0], s.x[1]), simt::pack_bf16(s.x[2], s.x[3])});
  }
}

/// products[row][token] = w^1/2 A scale (left_row . right_token - offset_row), zero for guards:
/// back from the dual (`left` is a dual vector, `right` the values, offset left . out) and forth
/// from a change of the keys (`left` the queries, `right` the change). Grid: token tile, row tile,
/// problem.
template <typename Left, typename Right>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads) weigh_products(RidgeRefineParams p,
                                                             Workspace w,
                                                             const Left* all_left,
                                                             const Right* all_right,
                                                             const float* all_offsets) {
  const int kept = n_kept(p);
  const int token0 = static_cast<int>(simt::block_idx().x) * kTile;
  const int row0 = static_cast<int>(simt::block_idx().y) * kTile;
  if (token0 >= kept || simt::ld_index(&(w.cg + problem())->active) == 0) {
    return;
  }
  const std::int64_t n_weights = static_cast<std::int64_t>(p.n_rows) * w.n_kept4;
  const Left* left = of_problem(all_left, static_cast<std::int64_t>(p.n_rows) * p.head_dim);
  const Right* right =
      of_problem(all_right, static_cast<std::int64_t>(p.kept_capacity) * p.head_dim);
  float sums[4][4] = {};
  product<true, true>(sums,
                      p.head_dim,
                      simt::shared_memory<float>(),
                      RowsAlongDepth<Left>{left, row0, p.n_rows, p.head_dim},
                      RowsAlongDepth<Right>{right, token0, kept, p.head_dim});
  const int token = token0 + first_column();
  SIMT_UNROLL for (int i = 0; i < 4; ++i) {
    const int row = row0 + first_row() + i;
    if (row < p.n_rows && token < kept) {
      const std::int64_t at = static_cast<std::int64_t>(row) * w.n_kept4 + token;
      const Quad weights = ld_quad(of_problem(w.weights, n_weights) + at);
      const float scale = p.softmax_scale * sqrtf(simt::ld_index(p.row_weights + row));
      const float offset =
          all_offsets != nullptr ? simt::ld(of_problem(all_offsets, p.n_rows) + row) : 0.0F;
      SIMT_UNROLL for (int j = 0; j < 4; ++j) {
        const bool moves = token + j < kept && movable(p, token + j);
        sums[i][j] = moves ? weights.x[j] * scale * (sums[i][j] - offset) : 0.0F;
      }
      st_quad(of_problem(w.products, n_weights) + at, sums[i]);
    }
  }
}

/// image = products x (values - out), out being the row's own; grid: column tile, row tile,
/// problem.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) centred_outputs(RidgeRefineParams p, Workspace w) {
  if (simt::ld_index(&(w.cg + problem())->active) == 0) {
    return;
  }
  const int kept = n_kept(p);
  const int column0 = static_cast<int>(simt::block_idx().x) * kTile;
  const int row0 = static_cast<int>(simt::block_idx().y) * kTile;
  const std::int64_t n_out = static_cast<std::int64_t>(p.n_rows) * p.head_dim;
  const float* products = of_problem(w.products, static_cast<std::int64_t>(p.n_rows) * w.n_kept4);
  const Bf16* values =
      of_problem(p.v_stepped, static_cast<std::int64_t>(p.kept_capacity) * p.head_dim);
  auto* shared = simt::shared_memory<float>();
  float sums[4][4] = {};
  float row_sums[4] = {};
  const WeightsAlongDepth left{products, row0, p.n_rows, kept, w.n_kept4};
  const RowsAsDepth<Bf16> right{values, kept, column0, p.head_dim};
  for (int depth = 0; depth < kept; depth += kDepth) {
    simt::syncblock();  // the stages are free
    stage<true>(shared, depth, left);
    stage<false>(shared + kStageFloats, depth, right);
    simt::syncblock();
    accumulate(sums, shared, shared + kStageFloats);
    SIMT_UNROLL for (int at = 0; at < kDepth; ++at) {
      SIMT_UNROLL for (int i = 0; i < 4; ++i) {
        row_sums[i] += shared[at * kPitch + first_row() + i];
      }
    }
  }
  const int column = column0 + first_column();
  SIMT_UNROLL for (int i = 0; i < 4; ++i) {
    const int row = row0 + first_row() + i;
    if (row < p.n_rows && column < p.head_dim) {
      const std::int64_t at = static_cast<std::int64_t>(row) * p.head_dim + column;
      const Quad out = ld_quad(of_problem(w.out, n_out) + at);
      SIMT_UNROLL for (int j = 0; j < 4; ++j) {
        sums[i][j] -= row_sums[i] * out.x[j];
      }
      st_quad(of_problem(w.cg_image, n_out) + at, sums[i]);
    }
  }
}

/// row_dots[row] = vector_row . out_row, by one warp a row. All threads of the block.
template <int Threads>
SIMT_DEVICE void dots_with_out(const RidgeRefineParams& p, const Workspace& w, const float* of) {
  const float* out = of_problem(w.out, static_cast<std::int64_t>(p.n_rows) * p.head_dim);
  for (int row = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize; row < p.n_rows;
       row += Threads / simt::kWarpSize) {
    float sum = 0.0F;
    for (int d = simt::lane_id(); d < p.head_dim; d += simt::kWarpSize) {
      const std::int64_t at = static_cast<std::int64_t>(row) * p.head_dim + d;
      sum += simt::ld(of + at) * simt::ld(out + at);
    }
    sum = simt::warp_sum(sum);
    if (simt::lane_id() == 0) {
      simt::st(of_problem(w.row_dots, p.n_rows) + row, sum);
    }
  }
}

/// Residual and direction become W^1/2 (Y - out), the dual vector zero; grid: 1, 1, problem.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) cg_start(RidgeRefineParams p, Workspace w) {
  const int n = p.n_rows * p.head_dim;
  float sum = 0.0F;
  for (int at = static_cast<int>(simt::thread_idx().x); at < n; at += Threads) {
    const float value = sqrtf(simt::ld_index(p.row_weights + at / p.head_dim)) *
                        simt::ld(of_problem(w.residual, n) + at);
    sum += value * value;
    simt::st(of_problem(w.cg_residual, n) + at, value);
    simt::st(of_problem(w.cg_direction, n) + at, value);
    simt::st(of_problem(w.dual, n) + at, 0.0F);
  }
  sum = block_sum(sum, simt::shared_memory<float>());  // its barriers publish the direction too
  dots_with_out<Threads>(p, w, of_problem(w.cg_direction, n));
  if (simt::thread_idx().x == 0) {
    simt::st(w.cg + problem(), CgState{sum, sum, 0, sum > 0.0F ? 1 : 0});
  }
}

/// One iteration's vector updates after image = J J^T direction; grid: 1, 1, problem.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) cg_update(RidgeRefineParams p, Workspace w) {
  CgState* const at_state = w.cg + problem();
  if (simt::ld_index(&at_state->active) == 0) {
    return;
  }
  const float residual_squared = simt::ld_index(&at_state->residual_squared);
  const float first_squared = simt::ld_index(&at_state->first_squared);
  const std::int32_t iterations = simt::ld_index(&at_state->iterations);
  auto* shared = simt::shared_memory<float>();
  const int n = p.n_rows * p.head_dim;
  const int thread = static_cast<int>(simt::thread_idx().x);
  float* residual = of_problem(w.cg_residual, n);
  float* direction = of_problem(w.cg_direction, n);
  const float* image = of_problem(w.cg_image, n);
  float* dual = of_problem(w.dual, n);
  float curvature = 0.0F;
  for (int at = thread; at < n; at += Threads) {
    const float d = simt::ld(direction + at);
    curvature += d * (simt::ld(image + at) + p.settings.lambda_k * d);
  }
  const float alpha = residual_squared / block_sum(curvature, shared);
  float squared = 0.0F;
  for (int at = thread; at < n; at += Threads) {
    const float d = simt::ld(direction + at);
    const float r =
        simt::ld(residual + at) - alpha * (simt::ld(image + at) + p.settings.lambda_k * d);
    squared += r * r;
    simt::st(residual + at, r);
    simt::st(dual + at, simt::ld(dual + at) + alpha * d);
  }
  squared = block_sum(squared, shared);
  const float beta = squared / residual_squared;
  for (int at = thread; at < n; at += Threads) {
    simt::st(direction + at, simt::ld(residual + at) + beta * simt::ld(direction + at));
  }
  simt::syncblock();  // the direction is in memory
  dots_with_out<Threads>(p, w, direction);
  if (thread == 0) {
    const float tolerance = p.settings.cg_tolerance * p.settings.cg_tolerance;
    const bool goes_on = squared > tolerance * first_squared;
    simt::st(at_state, CgState{squared, first_squared, iterations + 1, goes_on ? 1 : 0});
  }
}

/// Readies the way back from the dual solution; grid: 1, 1, problem.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) cg_finish(RidgeRefineParams p, Workspace w) {
  dots_with_out<Threads>(
      p, w, of_problem(w.dual, static_cast<std::int64_t>(p.n_rows) * p.head_dim));
  if (simt::thread_idx().x == 0) {
    CgState* state = w.cg + problem();
    simt::st(&(p.outcome + problem())->cg_iterations, simt::ld_index(&state->iterations));
    simt::st(&state->active, 1);
  }
}

/// Copies this block's part of a problem's kept rows.
template <int Threads>
SIMT_DEVICE void copy_part(const Bf16* from, Bf16* to, int n) {
  const int begin = static_cast<int>(simt::block_idx().x * Threads + simt::thread_idx().x) * 8;
  for (int at = begin; at < n; at += kNormParts * Threads * 8) {
    simt::st(reinterpret_cast<simt::U32x4*>(to + at), simt::ld_stream<simt::U32x4>(from + at));
  }
}

/// The best of the three goes out; grid: part, 1, problem.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) keep_best(RidgeRefineParams p) {
  RidgeRefineOutcome* outcome = p.outcome + problem();
  const float loss_kept = simt::ld_index(&outcome->loss_kept);
  const float loss_values = simt::ld_index(&outcome->loss_values);
  const float loss_both = simt::ld_index(&outcome->loss_both);
  // A loss that is NaN is never the smaller one.
  const bool takes_values = loss_values < loss_kept;
  const bool takes_both = loss_both < (takes_values ? loss_values : loss_kept);
  if (simt::block_idx().x == 0 && simt::thread_idx().x == 0) {
    simt::st(&outcome->choice,
             static_cast<std::int32_t>(takes_both     ? RidgeRefineOutcome::values_and_keys
                                       : takes_values ? RidgeRefineOutcome::values
                                                      : RidgeRefineOutcome::kept));
  }
  const std::int64_t first = problem() * (static_cast<std::int64_t>(p.kept_capacity) * p.head_dim);
  const int n = n_kept(p) * p.head_dim;
  copy_part<Threads>((takes_both ? p.k_stepped : p.k_kept) + first, p.k_out + first, n);
  copy_part<Threads>(
      (takes_both || takes_values ? p.v_stepped : p.v_kept) + first, p.v_out + first, n);
}

}  // namespace kvfathom::kernels::ridge
