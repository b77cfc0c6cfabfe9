// Attention of the surrogate queries: over the full cache (outputs only) and over the kept tokens
// (weights and outputs). Device code.
#pragma once

#include "kernels/ridge_refine/ridge_refine_product.h"
#include "kernels/ridge_refine/ridge_refine_workspace.h"

namespace kvfathom::kernels::ridge {

inline constexpr float kLog2E = 1.4426950408889634F;

/// Four depths of a row of a [n, head_dim] matrix; zeros beyond it.
template <typename T>
struct RowsAlongDepth {
  const T* rows;
  int first, n, head_dim;
  SIMT_DEVICE Quad operator()(int index, int depth) const {
    const int row = first + index;
    return row < n && depth < head_dim
               ? ld_quad(rows + static_cast<std::int64_t>(row) * head_dim + depth)
               : Quad{};
  }
};
/// The same matrix with its rows as the depth: four columns of one row.
template <typename T>
struct RowsAsDepth {
  const T* rows;
  int n, first_column, head_dim;
  SIMT_DEVICE Quad operator()(int index, int depth) const {
    const int column = first_column + index;
    return depth < n && column < head_dim
               ? ld_quad(rows + static_cast<std::int64_t>(depth) * head_dim + column)
               : Quad{};
  }
};

/// Softmax over the scores of one tile joins the state of the tokens before: rows' maxima and
/// sums, and the outputs so far, which shrink.
template <int Chunks>
struct OnlineSoftmax {
  float largest[4], sum[4];
  float out[Chunks][4][4];

  SIMT_DEVICE void add(float (&scores)[4][4], int first_token, int end) {
    SIMT_UNROLL for (int i = 0; i < 4; ++i) {
      float tile_largest = -INFINITY;
      SIMT_UNROLL for (int j = 0; j < 4; ++j) {
        scores[i][j] = first_token + first_column() + j < end ? scores[i][j] : -INFINITY;
        tile_largest = fmaxf(tile_largest, scores[i][j]);
      }
      // The tile holds a token, so the new maximum is finite.
      const float now = fmaxf(largest[i], max_along_row(tile_largest));
      const float shrink = simt::exp2_fast(largest[i] - now);
      float tile_sum = 0.0F;
      SIMT_UNROLL for (int j = 0; j < 4; ++j) {
        scores[i][j] = simt::exp2_fast(scores[i][j] - now);
        tile_sum += scores[i][j];
      }
      sum[i] = sum[i] * shrink + sum_along_row(tile_sum);
      largest[i] = now;
      SIMT_UNROLL for (int chunk = 0; chunk < Chunks; ++chunk) {
        SIMT_UNROLL for (int j = 0; j < 4; ++j) {
          out[chunk][i][j] *= shrink;
        }
      }
    }
  }
};

/// Shared memory of window_attention: two stages and the softmax weights of a tile.
inline constexpr std::size_t kAttentionSharedBytes =
    (2 * kStageFloats + kTile * kPitch) * sizeof(float);

/// Outputs of 64 queries over a run of the full cache; grid: row tile, run, problem. `Chunks` of 64
/// columns cover head_dim. Leaves the states that combine_splits merges.
template <int Chunks>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads) window_attention(RidgeRefineParams p, Workspace w) {
  auto* shared = simt::shared_memory<float>();
  float* weights = shared + 2 * kStageFloats;  // [token][row]
  const int row0 = static_cast<int>(simt::block_idx().x) * kTile;
  const auto split = static_cast<int>(simt::block_idx().y);
  const int run = (p.n_tokens + w.n_splits - 1) / w.n_splits;
  const int begin = split * run;
  const int end = begin + run < p.n_tokens ? begin + run : p.n_tokens;
  const std::int64_t full = static_cast<std::int64_t>(p.n_tokens) * p.head_dim;
  const Bf16* queries = of_problem(p.queries, static_cast<std::int64_t>(p.n_rows) * p.head_dim);
  const Bf16* keys = of_problem(p.k_full, full);
  const Bf16* values = of_problem(p.v_full, full);

  OnlineSoftmax<Chunks> state{};
  SIMT_UNROLL for (int i = 0; i < 4; ++i) {
    state.largest[i] = -INFINITY;
  }
  for (int token0 = begin; token0 < end; token0 += kTile) {
    float scores[4][4] = {};
    product<true, true>(scores,
                        p.head_dim,
                        shared,
                        RowsAlongDepth<Bf16>{queries, row0, p.n_rows, p.head_dim},
                        RowsAlongDepth<Bf16>{keys, token0, end, p.head_dim});
    SIMT_UNROLL for (int i = 0; i < 4; ++i) {
      SIMT_UNROLL for (int j = 0; j < 4; ++j) {
        scores[i][j] *= p.softmax_scale * kLog2E;
      }
    }
    state.add(scores, token0, end);
    SIMT_UNROLL for (int j = 0; j < 4; ++j) {  // readers of the last tile's are past a barrier
      SIMT_UNROLL for (int i = 0; i < 4; ++i) {
        weights[(first_column() + j) * kPitch + first_row() + i] = scores[i][j];
      }
    }
    SIMT_UNROLL for (int chunk = 0; chunk < Chunks; ++chunk) {
      const RowsAsDepth<Bf16> load{values, end, chunk * kTile, p.head_dim};
      for (int depth = 0; depth < kTile; depth += kDepth) {
        simt::syncblock();  // the weights are there, the stage is free
        stage<false>(shared, token0 + depth, load);
        simt::syncblock();
        accumulate(state.out[chunk], weights + depth * kPitch, shared);
      }
    }
  }

  float* out =
      of_problem(w.split_out, static_cast<std::int64_t>(p.n_rows) * w.n_splits * p.head_dim);
  float* max_sum =
      of_problem(w.split_max_sum, static_cast<std::int64_t>(p.n_rows) * w.n_splits * 2);
  SIMT_UNROLL for (int i = 0; i < 4; ++i) {
    const int row = row0 + first_row() + i;
    if (row >= p.n_rows) {
      break;
    }
    const std::int64_t at = static_cast<std::int64_t>(row) * w.n_splits + split;
    SIMT_UNROLL for (int chunk = 0; chunk < Chunks; ++chunk) {
      const int column = chunk * kTile + first_column();
      if (column < p.head_dim) {
        st_quad(out + at * p.head_dim + column, state.out[chunk][i]);
      }
    }
    if (first_column() == 0) {
      simt::st(max_sum + at * 2, state.largest[i]);
      simt::st(max_sum + at * 2 + 1, state.sum[i]);
    }
  }
}

/// Scores of 64 queries against 64 kept keys, in powers of two; grid: token tile, row tile,
/// problem. A template for linkage alone, as are those below.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads)
    kept_scores(RidgeRefineParams p, Workspace w, const Bf16* all_keys) {
  const int kept = n_kept(p);
  const int token0 = static_cast<int>(simt::block_idx().x) * kTile;
  const int row0 = static_cast<int>(simt::block_idx().y) * kTile;
  if (token0 >= kept) {
    return;
  }
  const Bf16* queries = of_problem(p.queries, static_cast<std::int64_t>(p.n_rows) * p.head_dim);
  const Bf16* keys = of_problem(all_keys, static_cast<std::int64_t>(p.kept_capacity) * p.head_dim);
  float scores[4][4] = {};
  product<true, true>(scores,
                      p.head_dim,
                      simt::shared_memory<float>(),
                      RowsAlongDepth<Bf16>{queries, row0, p.n_rows, p.head_dim},
                      RowsAlongDepth<Bf16>{keys, token0, kept, p.head_dim});
  float* weights = of_problem(w.weights, static_cast<std::int64_t>(p.n_rows) * w.n_kept4);
  const int token = token0 + first_column();
  SIMT_UNROLL for (int i = 0; i < 4; ++i) {
    const int row = row0 + first_row() + i;
    SIMT_UNROLL for (int j = 0; j < 4; ++j) {
      scores[i][j] = token + j < kept ? scores[i][j] * (p.softmax_scale * kLog2E) : -INFINITY;
    }
    if (row < p.n_rows && token < kept) {
      st_quad(weights + static_cast<std::int64_t>(row) * w.n_kept4 + token, scores[i]);
    }
  }
}

/// Scores become weights, in place. A warp owns a row; grid: rows / warps, 1, problem.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) softmax_rows(RidgeRefineParams p, Workspace w) {
  const int kept = n_kept(p);
  const int row = static_cast<int>(simt::block_idx().x * (Threads / simt::kWarpSize) +
                                   simt::thread_idx().x / simt::kWarpSize);
  if (row >= p.n_rows) {
    return;
  }
  float* weights = of_problem(w.weights, static_cast<std::int64_t>(p.n_rows) * w.n_kept4) +
                   static_cast<std::int64_t>(row) * w.n_kept4;
  constexpr int kStep = simt::kWarpSize * 4;
  float largest = -INFINITY;
  for (int token = simt::lane_id() * 4; token < kept; token += kStep) {
    const Quad scores = ld_quad(weights + token);
    SIMT_UNROLL for (int j = 0; j < 4; ++j) {
      largest = fmaxf(largest, scores.x[j]);
    }
  }
  largest = simt::warp_max(largest);
  float sum = 0.0F;
  for (int token = simt::lane_id() * 4; token < kept; token += kStep) {
    const Quad scores = ld_quad(weights + token);
    SIMT_UNROLL for (int j = 0; j < 4; ++j) {
      sum += simt::exp2_fast(scores.x[j] - largest);
    }
  }
  sum = simt::warp_sum(sum);
  for (int token = simt::lane_id() * 4; token < kept; token += kStep) {
    const Quad scores = ld_quad(weights + token);
    float normalised[4];
    SIMT_UNROLL for (int j = 0; j < 4; ++j) {
      normalised[j] = simt::exp2_fast(scores.x[j] - largest) / sum;
    }
    st_quad(weights + token, normalised);
  }
}

/// Four tokens of a row of weights or products; zeros beyond n_kept.
struct WeightsAlongDepth {
  const float* rows;
  int first, n_rows, kept, pitch;
  SIMT_DEVICE Quad operator()(int index, int depth) const {
    const int row = first + index;
    return row < n_rows && depth < kept
               ? ld_quad(rows + static_cast<std::int64_t>(row) * pitch + depth)
               : Quad{};
  }
};

/// out = weights x values, residual = target - out; grid: column tile, row tile, problem.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads)
    kept_outputs(RidgeRefineParams p, Workspace w, const Bf16* all_values) {
  const int kept = n_kept(p);
  const int column0 = static_cast<int>(simt::block_idx().x) * kTile;
  const int row0 = static_cast<int>(simt::block_idx().y) * kTile;
  const std::int64_t n_out = static_cast<std::int64_t>(p.n_rows) * p.head_dim;
  const float* weights = of_problem(w.weights, static_cast<std::int64_t>(p.n_rows) * w.n_kept4);
  const Bf16* values =
      of_problem(all_values, static_cast<std::int64_t>(p.kept_capacity) * p.head_dim);
  float sums[4][4] = {};
  product<true, false>(sums,
                       kept,
                       simt::shared_memory<float>(),
                       WeightsAlongDepth{weights, row0, p.n_rows, kept, w.n_kept4},
                       RowsAsDepth<Bf16>{values, kept, column0, p.head_dim});
  const int column = column0 + first_column();
  SIMT_UNROLL for (int i = 0; i < 4; ++i) {
    const int row = row0 + first_row() + i;
    if (row < p.n_rows && column < p.head_dim) {
      const std::int64_t at = static_cast<std::int64_t>(row) * p.head_dim + column;
      const Quad target = ld_quad(of_problem(w.target, n_out) + at);
      float residual[4];
      SIMT_UNROLL for (int j = 0; j < 4; ++j) {
        residual[j] = target.x[j] - sums[i][j];
      }
      st_quad(of_problem(w.out, n_out) + at, sums[i]);
      st_quad(of_problem(w.residual, n_out) + at, residual);
    }
  }
}

/// One of the three losses of a problem: sum over rows of w |residual|^2; grid: 1, 1, problem.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads)
    loss_of_rows(RidgeRefineParams p, Workspace w, int which) {
  const int n = p.n_rows * p.head_dim;
  const float* residual = of_problem(w.residual, n);
  float sum = 0.0F;
  for (int at = static_cast<int>(simt::thread_idx().x) * 4; at < n; at += Threads * 4) {
    const Quad quad = ld_quad(residual + at);
    const float weight = simt::ld_index(p.row_weights + at / p.head_dim);
    SIMT_UNROLL for (int j = 0; j < 4; ++j) {
      sum += weight * quad.x[j] * quad.x[j];
    }
  }
  sum = block_sum(sum, simt::shared_memory<float>());
  if (simt::thread_idx().x == 0) {
    RidgeRefineOutcome* outcome = p.outcome + problem();
    simt::st(which == 0   ? &outcome->loss_kept
             : which == 1 ? &outcome->loss_values
                          : &outcome->loss_both,
             sum);
  }
}

}  // namespace kvfathom::kernels::ridge
