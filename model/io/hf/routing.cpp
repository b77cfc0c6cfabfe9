// How mixtures of experts choose: what configs call it, over what their classes do by default.
#include <algorithm>
#include <array>
#include <cmath>

#include "model/io/hf/translate.h"

namespace kvfathom::hf {
namespace {

using std::int64_t;

/// The names of the score function, as llama.cpp's converter knows them.
constexpr std::array kGatingKeys{"score_function",
                                 "scoring_func",
                                 "score_func",
                                 "moe_router_activation",
                                 "moe_router_activation_func",
                                 "expert_selection_fn"};

ExpertGating read_gating(const Reader& config, ExpertGating fallback) {
  const auto* const key = std::find_if(
      kGatingKeys.begin(), kGatingKeys.end(), [&](const char* one) { return config.has(one); });
  if (key == kGatingKeys.end()) {
    return fallback;
  }
  const std::string function = config.text(*key);
  if (function == "sigmoid") {
    return ExpertGating::sigmoid;
  }
  if (function != "softmax") {
    throw config.error(*key, config.shown(*key) + " is not understood", "softmax or sigmoid");
  }
  return ExpertGating::softmax;
}

}  // namespace

void set_routing(MixtureOfExperts& moe, const Routing& routing) {
  moe.gating = routing.gating;
  moe.normalise_weights = routing.normalise_weights;
  moe.weights_scale = routing.weights_scale;
  moe.n_expert_groups = routing.n_groups;
  moe.n_expert_groups_used = routing.n_groups_used;
}

void read_routing(const Reader& config,
                  MixtureOfExperts& moe,
                  const Routing& defaults,
                  const RoutingKeys& keys) {
  set_routing(moe, defaults);
  moe.gating = read_gating(config, defaults.gating);
  if (keys.normalise_weights != nullptr) {
    moe.normalise_weights = config.flag_or(keys.normalise_weights, defaults.normalise_weights);
  }
  if (keys.weights_scale != nullptr) {
    moe.weights_scale = config.number_or(keys.weights_scale, defaults.weights_scale);
    if (!(moe.weights_scale > 0.0)) {
      throw config.error(
          keys.weights_scale, config.shown(keys.weights_scale) + " is out of range", "above 0");
    }
  }
  moe.n_expert_groups = config.count_or("n_group", defaults.n_groups, {1, moe.n_experts});
  if (moe.n_experts % moe.n_expert_groups != 0) {
    throw config.error("n_group",
                       std::to_string(moe.n_expert_groups) + " groups of " +
                           std::to_string(moe.n_experts) + " experts",
                       "a divisor");
  }
  const int64_t used = std::min(defaults.n_groups_used, moe.n_expert_groups);
  moe.n_expert_groups_used = config.count_or("topk_group", used, {1, moe.n_expert_groups});
}

}  // namespace kvfathom::hf
