// Families that are the common decoder with traits (src/models/<name>.cpp of llama.cpp).
#include <algorithm>
#include <array>

#include "model/engine/llama_cpp/graph/arch/decoder.h"

namespace kvfathom::llama_cpp {

namespace {

bool has_windows(const Builder& b) {
  return std::any_of(b.model.layers.begin(), b.model.layers.end(), [](const LayerSpec& layer) {
    const auto* a = std::get_if<Attention>(&layer.mixer);
    return a != nullptr && a->window_tokens.has_value();
  });
}

void build_plain(Builder& b) {
  build_sequential(b, {});
}

void build_softmax_experts(Builder& b) {
  build_sequential(b, {.routing = Routing::softmax_normalised});
}

void build_qwen2moe(Builder& b) {
  build_sequential(b, {.routing = Routing::softmax_plain});
}

void build_minimax_m2(Builder& b) {
  build_sequential(b, {.routing = Routing::normalised});
}

void build_phi3(Builder& b) {
  build_sequential(b,
                   {.scaled_queries = true,
                    .merged_gate_up = true,
                    .fused_qkv = true,
                    .residual_first = true,
                    .routing = Routing::softmax_normalised});
}

void build_glm4(Builder& b) {
  build_sequential(b, {.merged_gate_up = true});
}

void build_starcoder2(Builder& b) {
  build_sequential(b, {.norm = NormKind::layer, .activation = Activation::gelu});
}

void build_gemma(Builder& b) {
  build_sequential(b, {.scaled_queries = true, .activation = Activation::gelu});
}

void build_gemma2(Builder& b) {
  build_sequential(b,
                   {.windows_apart = has_windows(b),
                    .scaled_queries = true,
                    .activation = Activation::gelu,
                    .free_post_norm = true});
}

void build_olmo2(Builder& b) {
  build_sequential(b, {.windows_apart = has_windows(b), .free_post_norm = true});
}

void build_llama4(Builder& b) {
  build_sequential(b,
                   {.windows_apart = has_windows(b),
                    .norm_after_rotation = true,
                    .routing = Routing::sigmoid_on_inputs});
}

void build_phi2(Builder& b) {
  build_parallel(b,
                 {.norm = NormKind::layer, .scaled_queries = true, .activation = Activation::gelu},
                 [](TensorGraph& g, TensorId attention, TensorId forward, TensorId input) {
                   return g.add(g.add(attention, forward), input);
                 });
}

void build_falcon(Builder& b) {
  build_parallel(b,
                 {.norm = NormKind::layer, .activation = Activation::gelu, .fused_qkv = true},
                 [](TensorGraph& g, TensorId attention, TensorId forward, TensorId input) {
                   return g.add(g.add(forward, attention), input);
                 });
}

TensorId join_cohere(TensorGraph& g, TensorId attention, TensorId forward, TensorId input) {
  return g.add(g.add(forward, input), attention);
}

void build_command_r(Builder& b) {
  build_parallel(b, {.norm = NormKind::layer_no_bias}, join_cohere);
}

void build_cohere2(Builder& b) {
  build_parallel(b, {.norm = NormKind::layer_no_bias, .windows_apart = true}, join_cohere);
}

/// The residual stream itself is normalised once for both blocks where there is no second norm.
void build_stablelm(Builder& b) {
  if (b.model.layers.front().pre_feed_forward_norm) {
    build_sequential(b, {.norm = NormKind::layer});
    return;
  }
  build_parallel(b,
                 {.norm = NormKind::layer},
                 [](TensorGraph& g, TensorId attention, TensorId forward, TensorId input) {
                   return g.add(forward, g.add(attention, input));
                 });
}

constexpr auto kRows = std::to_array<ArchitectureRow>({{"llama", build_softmax_experts},
                                                       {"mistral3", build_softmax_experts},
                                                       {"qwen2", build_plain},
                                                       {"qwen2moe", build_qwen2moe},
                                                       {"qwen3", build_plain},
                                                       {"qwen3moe", build_softmax_experts},
                                                       {"granite", build_softmax_experts},
                                                       {"granitemoe", build_softmax_experts},
                                                       {"glm4moe", build_plain},
                                                       {"minimax-m2", build_minimax_m2},
                                                       {"llama4", build_llama4},
                                                       {"phi2", build_phi2},
                                                       {"phi3", build_phi3},
                                                       {"glm4", build_glm4},
                                                       {"gemma", build_gemma},
                                                       {"gemma2", build_gemma2},
                                                       {"gemma3", build_gemma2},
                                                       {"olmo2", build_olmo2},
                                                       {"starcoder2", build_starcoder2},
                                                       {"falcon", build_falcon},
                                                       {"command-r", build_command_r},
                                                       {"cohere2", build_cohere2},
                                                       {"stablelm", build_stablelm}});

}  // namespace

std::span<const ArchitectureRow> decoder_families() {
  return kRows;
}

}  // namespace kvfathom::llama_cpp
