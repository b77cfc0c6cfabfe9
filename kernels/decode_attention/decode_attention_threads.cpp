// Decode attention on the CPU: the share of each thread, and the merge of heads that were cut.
// Threads take equal shares of all attended tokens, so that one long sequence keeps them as busy as
// many short ones.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/common/error.h"
#include "kernels/common/parallel.h"
#include "kernels/decode_attention/decode_attention_cpu.h"

namespace kvfathom::kernels {
namespace {

/// A thread with fewer rows than this costs more to wake than it saves.
constexpr std::int64_t kLeastTokensPerThread = 128;

void check(const DecodeAttentionParams& params) {
  if (params.cache.n_kv_heads <= 0 || params.n_heads <= 0 ||
      params.n_heads % params.cache.n_kv_heads != 0) {
    throw UnsupportedShape(
        "n_heads = " + std::to_string(params.n_heads) +
        " is not a multiple of n_kv_heads = " + std::to_string(params.cache.n_kv_heads));
  }
  if (params.head_dim <= 0 || params.head_dim % 16 != 0) {
    throw UnsupportedShape("head_dim = " + std::to_string(params.head_dim) +
                           " is not a multiple of 16");
  }
  static_cast<void>(row_data_bytes(params.cache.format, params.head_dim));  // whole blocks
}

/// Item i of [n_sequences, n_kv_heads] holds the attended tokens [starts[i], starts[i + 1]).
std::vector<std::int64_t> token_starts(const DecodeAttentionParams& params) {
  std::vector<std::int64_t> starts = {0};
  for (int sequence = 0; sequence < params.cache.n_sequences; ++sequence) {
    for (int kv_head = 0; kv_head < params.cache.n_kv_heads; ++kv_head) {
      const int length = length_of(params.cache, sequence, kv_head);
      starts.push_back(starts.back() + attended_tokens(params, length).n);
    }
  }
  return starts;
}

/// Tokens [first, last) of all, cut at the ends of items.
std::vector<AttentionRun> cut_into_runs(const std::vector<std::int64_t>& starts,
                                        int n_kv_heads,
                                        std::int64_t first,
                                        std::int64_t last) {
  std::vector<AttentionRun> runs;
  auto item = std::upper_bound(starts.begin(), starts.end(), first) - starts.begin() - 1;
  for (; first < last; ++item) {
    const std::int64_t end = std::min(last, starts[item + 1]);
    if (end > first) {
      AttentionRun run;
      run.sequence = static_cast<int>(item / n_kv_heads);
      run.kv_head = static_cast<int>(item % n_kv_heads);
      run.first = static_cast<int>(first - starts[item]);
      run.last = static_cast<int>(end - starts[item]);
      runs.push_back(std::move(run));
    }
    first = end;
  }
  return runs;
}

/// Adds what another run made of the same heads.
void merge(const AttentionRun& other, int head_dim, AttentionRun& run) {
  for (std::size_t head = 0; head < run.states.size(); ++head) {
    SoftmaxState& mine = run.states[head];
    const SoftmaxState& theirs = other.states[head];
    const float max = std::max(mine.max, theirs.max);
    const float my_factor = std::exp(mine.max - max);
    const float their_factor = std::exp(theirs.max - max);
    mine = SoftmaxState{max, mine.sum * my_factor + theirs.sum * their_factor};
    for (int i = 0; i < head_dim; ++i) {
      float& x = run.out[head * head_dim + i];
      x = x * my_factor + other.out[head * head_dim + i] * their_factor;
    }
  }
}

/// Divides by the denominator, which the sink joins, and writes.
void finish(const DecodeAttentionParams& params, const AttentionRun& run) {
  const auto n_heads = static_cast<int>(run.states.size());
  for (int h = 0; h < n_heads; ++h) {
    const int head = run.kv_head * n_heads + h;
    const SoftmaxState& state = run.states[h];
    float denominator = state.sum;
    float factor = 1.0F;
    if (params.sink_logits != nullptr) {
      const float max = std::max(state.max, params.sink_logits[head]);
      factor = std::exp(state.max - max);
      denominator = state.sum * factor + std::exp(params.sink_logits[head] - max);
    }
    float* const out =
        params.out +
        (static_cast<std::int64_t>(run.sequence) * params.n_heads + head) * params.head_dim;
    for (int i = 0; i < params.head_dim; ++i) {
      out[i] = run.out[h * params.head_dim + i] * factor / denominator;
    }
  }
}

}  // namespace

AttendedTokens attended_tokens(const DecodeAttentionParams& params, int length) {
  if (params.window_tokens <= 0 || params.window_tokens >= length) {
    return AttendedTokens{0, 0, length};
  }
  const int n_sinks = std::min(params.sink_tokens, length);
  const int window_first = std::max(n_sinks, length - params.window_tokens);
  return AttendedTokens{n_sinks, window_first, n_sinks + length - window_first};
}

void decode_attention_cpu(const DecodeAttentionParams& params, int n_threads) {
  check(params);
  const std::vector<std::int64_t> starts = token_starts(params);
  std::fill_n(
      params.out,
      static_cast<std::int64_t>(params.cache.n_sequences) * params.n_heads * params.head_dim,
      0.0F);
  const std::int64_t n_tokens = starts.back();
  const int n_useful = static_cast<int>(
      std::clamp<std::int64_t>(n_tokens / kLeastTokensPerThread, 1, n_threads_or_all(n_threads)));

  std::vector<std::vector<AttentionRun>> cut_runs(n_useful);  // [thread], in order
  parallel_shares(n_useful, n_tokens, [&](int thread, std::int64_t first, std::int64_t last) {
    for (AttentionRun& run : cut_into_runs(starts, params.cache.n_kv_heads, first, last)) {
      attend(params, run);
      const std::size_t item = run.sequence * params.cache.n_kv_heads + run.kv_head;
      if (run.last - run.first == starts[item + 1] - starts[item]) {
        finish(params, run);
      } else {
        cut_runs[thread].push_back(std::move(run));
      }
    }
  });

  AttentionRun* open = nullptr;
  for (std::vector<AttentionRun>& of_thread : cut_runs) {
    for (AttentionRun& run : of_thread) {
      if (open != nullptr && open->sequence == run.sequence && open->kv_head == run.kv_head) {
        merge(run, params.head_dim, *open);
        continue;
      }
      if (open != nullptr) {
        finish(params, *open);
      }
      open = &run;
    }
  }
  if (open != nullptr) {
    finish(params, *open);
  }
}

}  // namespace kvfathom::kernels
