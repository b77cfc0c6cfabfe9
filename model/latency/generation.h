// Steps put together: a prompt in chunks, a token for every sequence.
#pragma once

#include <cstdint>
#include <vector>

#include "model/latency/step_ops.h"
#include "model/latency/step_time.h"

namespace kvfathom {

/// Sequences that decode while a prompt is processed.
struct Running {
  std::int64_t n_sequences = 0;
  std::int64_t n_cached_tokens = 0;  ///< of each
};

/// Prices prompts and decode steps of one model on one machine.
class Generation {
 public:
  /// A prompt is processed `chunk_tokens` at a time. Both references must outlive this.
  Generation(const StepOps& steps, const LawSource& laws, std::int64_t chunk_tokens);

  /// `n_tokens` of each of `n_sequences` prompts behind `n_cached_tokens` that are there already,
  /// until the first new token of each is known. The operations listed are those of all chunks, one
  /// after the other; the time is less where stages of layers work on different chunks at a time
  /// and the laws know what that gains.
  [[nodiscard]] StepTime prompt(std::int64_t n_tokens,
                                std::int64_t n_cached_tokens = 0,
                                std::int64_t n_sequences = 1,
                                bool details = false);

  /// Prompts whose chunks share their steps with a new token of every running sequence. These
  /// come out of the tokens of a step (vLLM and llama.cpp take them first), of which some must be
  /// left. Where nothing runs, as `prompt`.
  [[nodiscard]] Estimate prompt_beside(std::int64_t n_tokens,
                                       const Running& running,
                                       std::int64_t n_sequences = 1);
  /// One such step: products run over all rows together, attention over each by itself.
  [[nodiscard]] Estimate step_beside(std::int64_t n_tokens,
                                     std::int64_t n_cached_tokens,
                                     const Running& running);

  /// Whole prompts of `n_tokens` each, as many at a time as a chunk has room for, at least one.
  [[nodiscard]] Estimate prompts(std::int64_t n_tokens,
                                 std::int64_t n_prompts,
                                 const Running& running = {});

  /// One new token of each of `n_sequences` that hold `n_cached_tokens` each; or `n_new_tokens`,
  /// which verifies a draft of one less.
  [[nodiscard]] StepTime decode(std::int64_t n_cached_tokens,
                                std::int64_t n_sequences = 1,
                                bool details = false,
                                std::int64_t n_new_tokens = 1);

  /// What the last call with details priced; OpTime::op counts into it.
  [[nodiscard]] const std::vector<Op>& ops() const { return ops_; }
  [[nodiscard]] const StepPricer& pricer() const { return pricer_; }

 private:
  void emit_beside(const StepShape& chunk, const Running& running);
  void spread_over_stages(Estimate& prompt, std::int64_t n_chunks) const;

  const StepOps* steps_;
  StepPricer pricer_;
  std::int64_t chunk_tokens_;
  double pipeline_share_;
  std::vector<Op> ops_;
  std::vector<Op> other_ops_;  ///< scratch
};

/// How much sooner `n_chunks` are through layers that are spread over `n_stages` devices, which
/// work on different chunks at a time, than one after the other: `share` of what an ideal pipeline
/// gains, n_stages n_chunks / (n_chunks + n_stages - 1).
[[nodiscard]] double pipeline_speed_up(std::int64_t n_stages, double n_chunks, double share);

/// The model that a prediction block behind the decoder's last layer is: that layer again, with the
/// model's own output head (DeepSeek-V3 report, s2.2). InputError where the model has none.
[[nodiscard]] ModelSpec prediction_block(const ModelSpec& model);

/// Tokens that one step of a draft of `n_draft_tokens` yields where each is accepted with
/// probability `acceptance` and none behind the first that is not: (1 - a^(k+1)) / (1 - a)
/// (Leviathan et al. 2022, arXiv 2211.17192, eq. 1).
[[nodiscard]] double expected_tokens(double acceptance, std::int64_t n_draft_tokens);

}  // namespace kvfathom
