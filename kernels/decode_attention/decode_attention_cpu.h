// How CPU decode attention cuts its work: what the threads hand to the vector code and get back.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "kernels/decode_attention/decode_attention.h"

namespace kvfathom::kernels {

/// The running softmax of one head.
struct SoftmaxState {
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0.0F;
};

/// A run of the tokens that one KV head of one sequence attends to, numbered without the gap
/// between the sinks and the window, and what its query heads made of it.
struct AttentionRun {
  int sequence = 0;
  int kv_head = 0;
  int first = 0;
  int last = 0;
  std::vector<SoftmaxState> states;  ///< [query heads of the KV head]
  std::vector<float> out;            ///< [query heads, head_dim] sum of exp(score - max) v
};

/// The tokens that a sequence of `length` attends to: [0, n_sinks) and [window_first, length).
struct AttendedTokens {
  int n_sinks = 0;
  int window_first = 0;
  int n = 0;
};
[[nodiscard]] AttendedTokens attended_tokens(const DecodeAttentionParams& params, int length);

/// Fills the states and outputs of runs of one sequence, with the widest vectors that this CPU has.
/// All runs advance together, so that KV heads whose rows lie side by side are read side by side.
void attend(const DecodeAttentionParams& params, std::span<AttentionRun> runs);

}  // namespace kvfathom::kernels
