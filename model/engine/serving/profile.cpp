#include "model/engine/serving/profile.h"

#include <algorithm>
#include <variant>

namespace kvfathom::serving {
namespace {

constexpr std::int64_t kMiB = std::int64_t{1} << 20;
constexpr std::int64_t kActivationBytes = 2;
/// f32 logits, f32 sorted, i64 indices, f32 probabilities, f32 cumulated.
constexpr std::int64_t kSamplerBytes = 24;
constexpr std::int64_t kCheckedBytes = 8;  ///< f32 logits of a drafted token and the one behind it

/// Values per token that are alive at once in a layer's feed-forward, on one rank.
std::int64_t feed_forward_values(const FeedForward& feed_forward, const Parallel& parallel) {
  constexpr std::int64_t kGatedParts = 3;  // gate, up, and their product
  if (const auto* dense = std::get_if<DenseFeedForward>(&feed_forward)) {
    return (dense->gated ? kGatedParts : 2) * dense->intermediate_size / parallel.tensor;
  }
  if (const auto* moe = std::get_if<MixtureOfExperts>(&feed_forward)) {
    return kGatedParts * moe->n_experts_per_token * moe->intermediate_size / parallel.experts +
           kGatedParts * moe->shared_intermediate_size / parallel.tensor;
  }
  return 0;
}

}  // namespace

Modelled activation_peak(const StageRank& rank, const Parallel& parallel, const Step& step) {
  std::int64_t widest = 0;
  for (const LayerSpec& layer : rank.model.layers) {
    widest = std::max(widest, feed_forward_values(layer.feed_forward, parallel));
  }
  const std::int64_t layer_bytes =
      step.tokens * (2 * rank.model.hidden_size + widest) * kActivationBytes;
  const std::int64_t logit_bytes = kSamplerBytes + (step.drafts ? kCheckedBytes : 0);
  const std::int64_t sampler_bytes =
      rank.last ? std::min(step.tokens, step.sequences) * rank.model.vocab_size * logit_bytes : 0;
  const std::int64_t inputs =
      step.drafts ? 2 * step.tokens * rank.model.hidden_size * kActivationBytes : 0;
  const std::int64_t peak = std::max(layer_bytes, sampler_bytes);
  return {peak + inputs, peak / 5 + inputs, peak / 5 * 9 + inputs};
}

Modelled cuda_graphs() {
  return {300 * kMiB, 0, 1331 * kMiB};
}

Modelled runtime_memory(const Parallel& parallel) {
  const std::int64_t links = parallel.devices() > 1 ? 300 * kMiB : 0;
  return {250 * kMiB + links, 0, 1024 * kMiB + 4 * links};
}

}  // namespace kvfathom::serving
