// Feed-forwards of GGUF models: told by their tensors, with the counts that only keys hold.
#include <algorithm>

#include "model/error.h"
#include "model/io/gguf_layers.h"

namespace kvfathom {
namespace {

constexpr GgufRange kExperts{.min = 1, .max = 1 << 16};

DenseFeedForward dense(const GgufSource& source, std::int64_t layer) {
  const GgufTensors& tensors = source.tensors;
  const GgufTensor& up = tensors.required(layer, "ffn_up.weight");
  const GgufTensor& down = tensors.required(layer, "ffn_down.weight");
  DenseFeedForward ff;
  ff.intermediate_size = down.shape[0];
  const bool fused = up.shape[1] == 2 * ff.intermediate_size;  // gate and up in one (Phi-3)
  ff.gated = fused || tensors.has(layer, "ffn_gate.weight");
  ff.bias = tensors.has(layer, "ffn_up.bias") || tensors.has(layer, "ffn_down.bias");
  tensors.require_shape(up,
                        source.hidden_size,
                        fused ? up.shape[1] : ff.intermediate_size,
                        "embedding_length and ffn_down");
  return ff;
}

/// Whether a file without the key has a sigmoid: not DeepSeek's (older than the key), but those of
/// GLM and Step; GLM-4.7-Flash, which goes by DeepSeek's name, is told by its depth and vocabulary.
bool sigmoid_by_default(const GgufSource& source) {
  const std::string_view architecture = source.architecture.name;
  if (architecture == "deepseek2") {
    constexpr std::int64_t kFlashLayers = 47;
    constexpr std::int64_t kFlashVocabulary = 154880;
    return source.n_layers == kFlashLayers &&
           source.tensors.required("token_embd.weight").shape[1] == kFlashVocabulary;
  }
  return architecture == "glm4moe" || architecture == "glm-dsa" || architecture == "step35" ||
         architecture == "laguna";
}

/// expert_gating_func as files number it.
ExpertGating gating(const GgufSource& source) {
  switch (source.keys.integer("expert_gating_func", {.min = 0, .max = 4}).value_or(0)) {
    case 1:
      return ExpertGating::softmax;
    case 2:
      return ExpertGating::sigmoid;
    case 3:
      return ExpertGating::softmax_over_chosen;
    default:
      return sigmoid_by_default(source) ? ExpertGating::sigmoid : ExpertGating::softmax;
  }
}

/// How the router's scores become weights of the experts.
void read_routing(const GgufSource& source, MixtureOfExperts& moe) {
  const GgufKeys& keys = source.keys;
  moe.gating = gating(source);
  moe.normalise_weights = keys.boolean("expert_weights_norm").value_or(false);
  moe.weights_scale = keys.number("expert_weights_scale").value_or(1.0);
  const GgufRange groups{.min = 0, .max = moe.n_experts};
  moe.n_expert_groups =
      std::max<std::int64_t>(1, keys.integer("expert_group_count", groups).value_or(1));
  moe.n_expert_groups_used =
      std::max<std::int64_t>(1, keys.integer("expert_group_used_count", groups).value_or(1));
}

/// Experts merged in one tensor, {in, out, n_experts}, or (before April 2024) one tensor each.
MixtureOfExperts mixture(const GgufSource& source, std::int64_t layer) {
  const GgufKeys& keys = source.keys;
  const GgufTensors& tensors = source.tensors;
  MixtureOfExperts moe;
  moe.n_experts = keys.required("expert_count", kExperts);
  moe.n_experts_per_token = keys.required("expert_used_count", {.min = 1, .max = moe.n_experts});
  const GgufTensor* down = tensors.find(layer, "ffn_down_exps.weight");
  const bool merged = down != nullptr;
  if (!merged) {
    down = &tensors.required(layer, "ffn_down.0.weight");
  }
  moe.intermediate_size = down->shape[0];
  if (merged && down->shape[2] != moe.n_experts) {
    tensors.refuse(*down,
                   "shape " + shape_text(*down),
                   std::to_string(moe.n_experts) + " experts by expert_count");
  }
  moe.gated = tensors.has(layer, "ffn_gate_exps.weight") ||
              tensors.has(layer, "ffn_gate_up_exps.weight") ||
              tensors.has(layer, "ffn_gate.0.weight");
  moe.bias = tensors.has(layer, "ffn_up_exps.bias");
  moe.router_bias = tensors.has(layer, "exp_probs_b.bias");
  moe.merged_gate_up = tensors.has(layer, "ffn_gate_up_exps.weight");
  read_routing(source, moe);
  if (const GgufTensor* shared = tensors.find(layer, "ffn_down_shexp.weight")) {
    moe.shared_intermediate_size = shared->shape[0];
    moe.n_shared_experts = keys.integer("expert_shared_count", kExperts).value_or(1);
    moe.shared_expert_gate = tensors.has(layer, "ffn_gate_inp_shexp.weight");
  }
  if (const GgufTensor* latent = tensors.find(layer, "ffn_latent_down.weight")) {
    moe.latent_size = latent->shape[1];
  }
  if (const GgufTensor* beside = tensors.find(layer, "ffn_down.weight")) {
    moe.dense_intermediate_size = beside->shape[0];
  }
  return moe;
}

}  // namespace

FeedForward gguf_feed_forward(const GgufSource& source, std::int64_t layer) {
  const GgufTensors& tensors = source.tensors;
  if (tensors.has(layer, "ffn_gate_inp.weight")) {
    return mixture(source, layer);
  }
  if (tensors.has(layer, "ffn_up.weight")) {
    return dense(source, layer);
  }
  return NoFeedForward{};
}

}  // namespace kvfathom
