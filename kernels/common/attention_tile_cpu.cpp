#include "kernels/common/attention_tile_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/common/attention_tile_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/common/attention_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels {
namespace HWY_NAMESPACE {

void score(ConstMatrixF32 q, int n_rows, ConstMatrixF32 k, int n_tokens, int dim, MatrixF32 to) {
  score_tile(q.data, q.stride, n_rows, k.data, k.stride, n_tokens, dim, to.data, to.stride);
}

void add(
    ConstMatrixF32 weights, int n_rows, ConstMatrixF32 v, int n_tokens, int dim, MatrixF32 to) {
  add_values(
      weights.data, weights.stride, n_rows, v.data, v.stride, n_tokens, dim, to.data, to.stride);
}

float softmax(float* scores, int n, float scale) {
  SoftmaxRow state;
  add_to_softmax(scores, 0, n, scale, state, nullptr, 0);
  return state.sum;
}

}  // namespace HWY_NAMESPACE
}  // namespace kvfathom::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvfathom::kernels {

HWY_EXPORT(score);
HWY_EXPORT(add);
HWY_EXPORT(softmax);

void score_tile_cpu(
    ConstMatrixF32 q, int n_rows, ConstMatrixF32 k, int n_tokens, int dim, MatrixF32 scores) {
  HWY_DYNAMIC_DISPATCH(score)(q, n_rows, k, n_tokens, dim, scores);
}

void add_values_cpu(
    ConstMatrixF32 weights, int n_rows, ConstMatrixF32 v, int n_tokens, int dim, MatrixF32 out) {
  HWY_DYNAMIC_DISPATCH(add)(weights, n_rows, v, n_tokens, dim, out);
}

float softmax_row_cpu(float* scores, int n, float scale) {
  return HWY_DYNAMIC_DISPATCH(softmax)(scores, n, scale);
}

}  // namespace kvfathom::kernels
#endif
