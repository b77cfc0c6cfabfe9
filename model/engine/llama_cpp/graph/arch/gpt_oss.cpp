// gpt-oss (src/models/openai-moe.cpp): sinks, windows on every other layer, biased experts.
#include <array>

#include "model/engine/llama_cpp/graph/arch/arch.h"

namespace kvfathom::llama_cpp {

namespace {

void build_gpt_oss(Builder& b) {
  TensorGraph& g = b.graph;
  TensorId x = b.token_embedding();
  const TensorId pos = b.positions();
  const CacheInputs full = b.cache_inputs(CacheKind::full);
  const CacheInputs window = b.cache_inputs(CacheKind::window);
  const TensorId rows = b.output_rows();
  const bool fused = b.model.fused_qkv.value_or(false);
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const auto& moe = std::get<MixtureOfExperts>(b.model.layers[i].feed_forward);
    const Attention& a = attention_of(b, i);
    Qkv qkv = b.qkv(a, b.norm(x), fused);
    qkv.q = b.rope(qkv.q, pos);
    qkv.k = b.rope(qkv.k, pos);
    TensorId t = b.attend(a.window_tokens ? window : full,
                          {a.head_dim, a.v_head_dim, a.n_kv_heads},
                          qkv,
                          {.sinks = a.sinks},
                          true);
    t = b.project(t, b.model.hidden_size, a.output_bias);
    const TensorId middle = g.add(t, x);
    MoeOptions options = moe_options(moe);
    options.gating = ExpertGating::softmax_over_chosen;
    options.selection_bias = false;
    options.router_bias = moe.bias;
    options.normalise_weights = false;
    x = g.add(b.experts(b.norm(middle), moe, options), middle);
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  g.set_output(x);  // kept for multi-token prediction
  b.head(b.take_outputs(x, rows));
}

}  // namespace

std::span<const ArchitectureRow> gpt_oss_family() {
  static constexpr std::array<ArchitectureRow, 1> kRows{{{"gpt-oss", build_gpt_oss}}};
  return kRows;
}

}  // namespace kvfathom::llama_cpp
