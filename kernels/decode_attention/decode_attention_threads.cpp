// Decode attention on the CPU: the share of each thread, and the merge of heads that were cut.
// Threads take equal shares of all attended tokens, so that one long sequence keeps them as busy as
// many short ones; of a sequence that is cut, the same part of every KV head.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
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

/// The attended tokens of every KV head of every sequence, one after the other.
class AllTokens {
 public:
  explicit AllTokens(const DecodeAttentionParams& params) : n_kv_heads_(params.cache.n_kv_heads) {
    for (int sequence = 0; sequence < params.cache.n_sequences; ++sequence) {
      std::int64_t of_sequence = 0;
      for (int kv_head = 0; kv_head < n_kv_heads_; ++kv_head) {
        of_heads_.push_back(attended_tokens(params, length_of(params.cache, sequence, kv_head)).n);
        of_sequence += of_heads_.back();
      }
      starts_.push_back(starts_.back() + of_sequence);
    }
  }
  [[nodiscard]] std::int64_t n() const { return starts_.back(); }

  /// Calls use(runs) for each sequence in tokens [first, last) with the runs of its KV heads: of a
  /// sequence of which a part is asked for, that part of every head.
  template <typename Use>
  void for_sequences(std::int64_t first, std::int64_t last, const Use& use) const {
    auto sequence = std::upper_bound(starts_.begin(), starts_.end(), first) - starts_.begin() - 1;
    for (; first < last; ++sequence) {
      const std::int64_t start = starts_[sequence];
      const std::int64_t n = starts_[sequence + 1] - start;
      const std::int64_t end = std::min(last, start + n);
      std::vector<AttentionRun> runs;
      for (int kv_head = 0; kv_head < n_kv_heads_; ++kv_head) {
        const std::int64_t of_head = of_heads_[sequence * n_kv_heads_ + kv_head];
        AttentionRun run;
        run.sequence = static_cast<int>(sequence);
        run.kv_head = kv_head;
        run.first = static_cast<int>(of_head * (first - start) / n);
        run.last = static_cast<int>(of_head * (end - start) / n);
        if (run.last > run.first) {
          runs.push_back(std::move(run));
        }
      }
      use(runs);
      first = end;
    }
  }
  /// Whether a run holds all that its KV head attends to.
  [[nodiscard]] bool is_whole(const AttentionRun& run) const {
    return run.last - run.first == of_heads_[run.sequence * n_kv_heads_ + run.kv_head];
  }

 private:
  int n_kv_heads_;
  std::vector<std::int64_t> of_heads_;      ///< [n_sequences, n_kv_heads]
  std::vector<std::int64_t> starts_ = {0};  ///< [n_sequences + 1]
};

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
  const AllTokens tokens(params);
  std::fill_n(
      params.out,
      static_cast<std::int64_t>(params.cache.n_sequences) * params.n_heads * params.head_dim,
      0.0F);
  const int n_useful = static_cast<int>(
      std::clamp<std::int64_t>(tokens.n() / kLeastTokensPerThread, 1, n_threads_or_all(n_threads)));

  std::vector<std::vector<AttentionRun>> cut_runs(n_useful);  // [thread]
  parallel_shares(n_useful, tokens.n(), [&](int thread, std::int64_t first, std::int64_t last) {
    tokens.for_sequences(first, last, [&](std::vector<AttentionRun>& runs) {
      attend(params, runs);
      for (AttentionRun& run : runs) {
        if (tokens.is_whole(run)) {
          finish(params, run);
        } else {
          cut_runs[thread].push_back(std::move(run));
        }
      }
    });
  });

  std::map<std::pair<int, int>, AttentionRun*> open;  // by sequence and KV head
  for (std::vector<AttentionRun>& of_thread : cut_runs) {
    for (AttentionRun& run : of_thread) {
      const auto [of_head, is_first] = open.try_emplace({run.sequence, run.kv_head}, &run);
      if (!is_first) {
        merge(run, params.head_dim, *of_head->second);
      }
    }
  }
  for (const auto& [head, run] : open) {
    finish(params, *run);
  }
}

}  // namespace kvfathom::kernels
