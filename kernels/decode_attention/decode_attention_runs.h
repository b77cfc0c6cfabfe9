// Device code that both decode kernels share: which tokens a block attends to, and where what it
// finds goes.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/common/split_combine.h"
#include "kernels/decode_attention/decode_attention.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels::decode {

inline constexpr float kLog2E = 1.4426950408889634F;
inline constexpr int kWarps = 4;
inline constexpr int kThreads = kWarps * simt::kWarpSize;

struct Arguments {
  DecodeAttentionParams params;
  SplitStates states;  ///< unused with one split: blocks then write params.out themselves
};

/// The attended tokens of one sequence and KV head in order: first the sinks, then the window.
struct AttendedTokens {
  int n;
  int n_sinks;
  int n_skipped;  ///< between the two

  [[nodiscard]] SIMT_DEVICE int token(int index) const {
    return index < n_sinks ? index : index + n_skipped;
  }
};
SIMT_DEVICE AttendedTokens attended_tokens(const DecodeAttentionParams& params, int length) {
  if (params.window_tokens == 0 || length <= params.window_tokens) {
    return AttendedTokens{length, 0, 0};
  }
  const int before_window = length - params.window_tokens;
  const int n_sinks = params.sink_tokens < before_window ? params.sink_tokens : before_window;
  return AttendedTokens{params.window_tokens + n_sinks, n_sinks, before_window - n_sinks};
}

/// What one block does: a run of one KV head's attended tokens against up to `RowsPerBlock` of the
/// query heads that share the KV head.
struct Task {
  int sequence;
  int kv_head;
  int first_head;
  int n_rows;
  AttendedTokens tokens;
  int first, last;  ///< of the attended tokens

  [[nodiscard]] SIMT_DEVICE KvSlot slot(const KvCacheView& cache, int index) const {
    return slot_of(cache, sequence, tokens.token(index < last ? index : last - 1));
  }
};
/// Runs are whole tiles of 16 tokens, so that only the last tile of a sequence is ever partial.
inline constexpr int kTileTokens = 16;

/// Grid: split; KV head and group of rows; sequence.
template <int kRowsPerBlock>
SIMT_DEVICE Task block_task(const Arguments& arguments) {
  const DecodeAttentionParams& params = arguments.params;
  const int ratio = params.n_heads / params.cache.n_kv_heads;
  const int row_blocks = (ratio + kRowsPerBlock - 1) / kRowsPerBlock;
  const int row_block = static_cast<int>(simt::block_idx().y) % row_blocks;
  const int split = static_cast<int>(simt::block_idx().x);
  Task task{};
  task.sequence = static_cast<int>(simt::block_idx().z);
  task.kv_head = static_cast<int>(simt::block_idx().y) / row_blocks;
  task.first_head = task.kv_head * ratio + row_block * kRowsPerBlock;
  const int rows_left = ratio - row_block * kRowsPerBlock;
  task.n_rows = rows_left < kRowsPerBlock ? rows_left : kRowsPerBlock;
  task.tokens = attended_tokens(params, length_of(params.cache, task.sequence, task.kv_head));
  const int n_splits = arguments.states.n_splits;
  const int run =
      ((task.tokens.n + n_splits - 1) / n_splits + kTileTokens - 1) / kTileTokens * kTileTokens;
  task.first = split * run < task.tokens.n ? split * run : task.tokens.n;
  task.last = task.first + run < task.tokens.n ? task.first + run : task.tokens.n;
  return task;
}

/// One output of the block: `total` is the sum of 2^(score - largest) v, `sum` that of the weights.
SIMT_DEVICE void store_result(const Arguments& arguments,
                              const Task& task,
                              int row,
                              int column,
                              float total,
                              float largest,
                              float sum) {
  const DecodeAttentionParams& params = arguments.params;
  const int head = task.first_head + row;
  const std::int64_t out_row = static_cast<std::int64_t>(task.sequence) * params.n_heads + head;
  const SplitStates& states = arguments.states;
  if (states.n_splits > 1) {
    const std::int64_t at = out_row * states.n_splits + simt::block_idx().x;
    simt::st(states.out + at * params.head_dim + column, total);
    if (column == 0) {
      simt::st(states.max_sum + at * 2, largest);
      simt::st(states.max_sum + at * 2 + 1, sum);
    }
    return;
  }
  float out = 0.0F;
  if (sum > 0.0F) {
    if (params.sink_logits != nullptr) {
      // A sink far above all scores overflows the power, and the quotient is 0 as it should be.
      sum += simt::exp2_fast(simt::ld(params.sink_logits + head) * kLog2E - largest);
    }
    out = total / sum;
  }
  simt::st(params.out + out_row * params.head_dim + column, out);
}

/// A run without tokens.
SIMT_DEVICE void store_nothing(const Arguments& arguments, const Task& task) {
  const int head_dim = arguments.params.head_dim;
  for (int i = static_cast<int>(simt::thread_idx().x); i < task.n_rows * head_dim; i += kThreads) {
    store_result(arguments, task, i / head_dim, i % head_dim, 0.0F, -INFINITY, 0.0F);
  }
}

/// The softmax states that the warps (or parts of warps) of a block leave in shared memory.
struct BlockStates {
  float* out;      ///< [n_states, n_rows, pitch]
  float* max_sum;  ///< [n_states, n_rows, 2]
  int pitch;
};
SIMT_DEVICE BlockStates block_states(int n_states, int n_rows, int pitch) {
  auto* out = simt::shared_memory<float>();
  return BlockStates{out, out + n_states * n_rows * pitch, pitch};
}
inline std::size_t block_states_bytes(int n_states, int n_rows, int pitch) {
  return static_cast<std::size_t>(n_states) * n_rows * (pitch + 2) * sizeof(float);
}

/// Merges the states and stores the results. All threads, after a barrier.
SIMT_DEVICE void merge_and_store(const Arguments& arguments,
                                 const Task& task,
                                 const BlockStates& states,
                                 int n_states) {
  const int head_dim = arguments.params.head_dim;
  for (int i = static_cast<int>(simt::thread_idx().x); i < task.n_rows * head_dim; i += kThreads) {
    const int row = i / head_dim;
    const int column = i % head_dim;
    float largest = -INFINITY;
    for (int state = 0; state < n_states; ++state) {
      largest = fmaxf(largest, states.max_sum[(state * task.n_rows + row) * 2]);
    }
    float total = 0.0F;
    float sum = 0.0F;
    for (int state = 0; state < n_states; ++state) {
      const int at = state * task.n_rows + row;
      const float weight = simt::exp2_fast(states.max_sum[at * 2] - largest);
      sum += weight * states.max_sum[at * 2 + 1];
      total += weight * states.out[at * states.pitch + column];
    }
    store_result(arguments, task, row, column, total, largest, sum);
  }
}

}  // namespace kvfathom::kernels::decode
