// What `speed` prices: a query's model as steps, on its machine, by the laws that are known of it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/query.h"
#include "cli/speed_laws.h"
#include "model/latency/generation.h"

namespace kvfathom::cli {

/// From so many tokens a step on llama.cpp's backends take products over from the host and copy the
/// weights that they need, of experts those that are used (ggml-cuda.cu, GGML_OP_OFFLOAD_MIN_BATCH;
/// github.com/ggml-org/llama.cpp/pull/15346, August 2025).
inline constexpr std::int64_t kOffloadTokens = 32;

/// Speculative decoding: so many drafted tokens a step, each accepted with this probability. The
/// query's draft model drafts, or without one the model's own prediction block.
struct Speculation {
  std::int64_t n_draft_tokens = 0;
  double acceptance = 0.0;
};

/// The operations of one case, and how to price them.
class SpeedPlan {
 public:
  /// Unsupported where the placement is not modelled; InputError where the machine says too little.
  SpeedPlan(const Query& query,
            const CacheCase& cache_case,
            const std::optional<Speculation>& speculation = std::nullopt);

  /// Whether the device's peak rate is known, without which a prompt has no time.
  [[nodiscard]] bool prices_prompts() const { return prompt_ != nullptr; }
  /// A prompt of one sequence until its first new token.
  [[nodiscard]] StepTime prompt(std::int64_t context_tokens, bool details);
  /// What the last call with details priced, of either phase.
  [[nodiscard]] const std::vector<Op>& ops() const { return ops_; }
  [[nodiscard]] std::int64_t n_gpus() const { return n_gpus_; }
  [[nodiscard]] std::int64_t replicas() const { return replicas_; }

  /// One step of every sequence, spread over the replicas; whether all of it fits is the ledger's
  /// matter. With speculation: drafting and verifying, the operations listed being those of the
  /// latter.
  [[nodiscard]] StepTime decode(std::int64_t context_tokens, std::int64_t sequences, bool details);

  /// New tokens that a step yields each sequence.
  [[nodiscard]] double tokens_per_step() const;

  /// Where the laws of what was priced so far come from.
  [[nodiscard]] std::string laws_sentence() const;

 private:
  std::unique_ptr<LawSource> prompt_laws_;  ///< null where the device's peak rate is not known
  std::unique_ptr<LawSource> decode_laws_;
  std::unique_ptr<StepOps> steps_;
  std::unique_ptr<Generation> prompt_;
  std::unique_ptr<Generation> decode_;
  std::vector<Op> ops_;
  std::optional<Speculation> speculation_;
  std::unique_ptr<StepOps> draft_steps_;
  std::unique_ptr<Generation> draft_;
  std::int64_t n_gpus_ = 1;
  std::int64_t replicas_ = 1;
};

/// The query's settings as steps know them.
[[nodiscard]] LatencySettings latency_settings(const Query& query, const CacheCase& cache_case);
/// Tokens of a prompt that the engine processes in one step.
[[nodiscard]] std::int64_t chunk_tokens(const Query& query);

/// Contexts from one to another, both included.
struct Span {
  std::int64_t from_tokens = 1;
  std::optional<std::int64_t> to_tokens;  ///< nothing: on to the limit that was looked at
};

/// Contexts up to `limit_tokens` at which a decode step of `one` is quicker than of `other`.
[[nodiscard]] std::vector<Span> pays_at(SpeedPlan& one,
                                        SpeedPlan& other,
                                        std::int64_t sequences,
                                        std::int64_t limit_tokens);

/// The context from which on it pays for good; 0: from the start.
[[nodiscard]] std::optional<std::int64_t> pays_from(const std::vector<Span>& spans);

}  // namespace kvfathom::cli
