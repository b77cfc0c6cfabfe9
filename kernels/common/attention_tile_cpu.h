// The loops of attention_tile-inl.h for CPU versions that are not themselves compiled once per
// instruction set: products of a few rows with a tile of tokens, and the softmax of a row.
#pragma once

#include "kernels/common/blas.h"

namespace kvfathom::kernels {

/// scores[r, t] = q[r] . k[t] for q [n_rows, dim] and k [n_tokens, dim]; dim is a multiple of 16.
void score_tile_cpu(
    ConstMatrixF32 q, int n_rows, ConstMatrixF32 k, int n_tokens, int dim, MatrixF32 scores);

/// out[r] += sum_t weights[r, t] v[t] for v [n_tokens, dim]; dim is a multiple of 16.
void add_values_cpu(
    ConstMatrixF32 weights, int n_rows, ConstMatrixF32 v, int n_tokens, int dim, MatrixF32 out);

/// exp(scale * score - the largest), in place; returns their sum. Zeros follow, up to a multiple of
/// kSoftmaxPadding. n > 0.
inline constexpr int kSoftmaxPadding = 16;
[[nodiscard]] float softmax_row_cpu(float* scores, int n, float scale);

}  // namespace kvfathom::kernels
