#include "model/engine/llama_cpp/graph/arch/arch.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "model/error.h"

namespace kvfathom::llama_cpp {

namespace {

constexpr std::array kFamilies{decoder_families,
                               deepseek_family,
                               gemma3n_family,
                               gemma4_family,
                               gpt_oss_family,
                               gpt2_family,
                               lfm2_family,
                               mamba_family,
                               mamba_hybrid_family,
                               delta_net_family};

std::string names() {
  std::vector<std::string_view> sorted;
  for (const auto family : kFamilies) {
    for (const ArchitectureRow& row : family()) {
      sorted.push_back(row.name);
    }
  }
  std::ranges::sort(sorted);
  std::string text;
  for (const std::string_view name : sorted) {
    text += text.empty() ? "" : ", ";
    text += name;
  }
  return text;
}

}  // namespace

BuildGraph graph_builder(std::string_view architecture) {
  for (const auto family : kFamilies) {
    for (const ArchitectureRow& row : family()) {
      if (row.name == architecture) {
        return row.build;
      }
    }
  }
  throw Unsupported("model architecture",
                    "no llama.cpp compute graph for \"" + std::string(architecture) + "\"",
                    "one of " + names());
}

const Attention& attention_of(const Builder& b, std::size_t layer) {
  if (const auto* a = std::get_if<Attention>(&b.model.layers.at(layer).mixer)) {
    return *a;
  }
  throw Unsupported("layer " + std::to_string(layer),
                    "a mixer that architecture \"" + b.model.architecture + "\" does not have",
                    "attention");
}

MoeOptions moe_options(const MixtureOfExperts& moe) {
  MoeOptions options;
  options.gating = moe.gating;
  options.normalise_weights = moe.normalise_weights;
  options.scale_weights = moe.weights_scale != 0.0 && moe.weights_scale != 1.0;
  options.selection_bias = moe.router_bias;
  options.expert_bias = moe.bias;
  options.gated = moe.gated;
  options.merged_gate_up = moe.merged_gate_up;
  options.n_groups = moe.n_expert_groups;
  options.n_groups_used = moe.n_expert_groups_used;
  return options;
}

}  // namespace kvfathom::llama_cpp
