// Merging the softmax states of runs of tokens: the second half of split-KV decoding. Device code.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/simt/simt.h"

namespace kvfathom::kernels {

/// What the blocks of a split-KV kernel leave for the merge. A row is one query head of one
/// sequence. A run without tokens leaves a maximum of -infinity, and zeros.
struct SplitStates {
  float* out = nullptr;      ///< [n_rows, n_splits, head_dim] sum of 2^(score - maximum) v
  float* max_sum = nullptr;  ///< [n_rows, n_splits, 2] largest score; sum of 2^(score - maximum)
  int n_splits = 0;
};

/// Scratch memory of the states.
inline std::int64_t split_states_bytes(std::int64_t n_rows, int n_splits, int head_dim) {
  return n_rows * n_splits * (head_dim + 2) * static_cast<std::int64_t>(sizeof(float));
}
inline SplitStates split_states_at(void* scratch, std::int64_t n_rows, int n_splits, int head_dim) {
  auto* out = static_cast<float*>(scratch);
  return SplitStates{out, out + n_rows * n_splits * head_dim, n_splits};
}

inline constexpr int kCombineThreads = 128;

/// A thread owns one column of one row; grid: row, chunk of kCombineThreads columns. `sink_logits`
/// [n_heads], natural logarithms, join the denominator; null: none. A template for linkage alone.
template <int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) combine_splits(
    SplitStates states, int n_heads, int head_dim, const float* sink_logits, float* out) {
  constexpr float kLog2E = 1.4426950408889634F;
  const auto row = static_cast<std::int64_t>(simt::block_idx().x);
  const auto column = static_cast<int>(simt::block_idx().y * Threads + simt::thread_idx().x);
  if (column >= head_dim) {
    return;
  }
  const float* max_sum = states.max_sum + row * states.n_splits * 2;
  float sink = -INFINITY;
  if (sink_logits != nullptr) {
    sink = simt::ld(sink_logits + row % n_heads) * kLog2E;
  }
  float largest = sink;
  for (int split = 0; split < states.n_splits; ++split) {
    largest = fmaxf(largest, simt::ld(max_sum + split * 2));
  }
  float total = 0.0F;
  float denominator = 0.0F;
  if (largest != -INFINITY) {
    denominator = simt::exp2_fast(sink - largest);
    for (int split = 0; split < states.n_splits; ++split) {
      const float weight = simt::exp2_fast(simt::ld(max_sum + split * 2) - largest);
      denominator += weight * simt::ld(max_sum + split * 2 + 1);
      total += weight * simt::ld_stream<float>(states.out +
                                               (row * states.n_splits + split) * head_dim + column);
    }
  }
  simt::st(out + row * head_dim + column, denominator > 0.0F ? total / denominator : 0.0F);
}

inline void combine_splits_launch(const SplitStates& states,
                                  std::int64_t n_rows,
                                  int n_heads,
                                  int head_dim,
                                  const float* sink_logits,
                                  float* out,
                                  Stream stream) {
  const simt::Dim3 grid(static_cast<unsigned>(n_rows),
                        static_cast<unsigned>((head_dim + kCombineThreads - 1) / kCombineThreads));
  simt::launch(combine_splits<kCombineThreads>,
               grid,
               kCombineThreads,
               0,
               stream,
               states,
               n_heads,
               head_dim,
               sink_logits,
               out);
}

}  // namespace kvfathom::kernels
