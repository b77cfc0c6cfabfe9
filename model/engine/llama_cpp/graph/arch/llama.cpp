// Llama and what is built like it (src/models/llama.cpp).
#include <array>

#include "model/engine/llama_cpp/graph/arch/arch.h"

namespace kvfathom::llama_cpp {

namespace {

TensorId llama_feed_forward(Builder& b, TensorId x, const LayerSpec& layer) {
  if (const auto* dense = std::get_if<DenseFeedForward>(&layer.feed_forward)) {
    return b.feed_forward(x, *dense, Activation::silu);
  }
  const auto& moe = std::get<MixtureOfExperts>(layer.feed_forward);
  MoeOptions options = moe_options(moe);
  options.gating = ExpertGating::softmax;
  options.normalise_weights = true;
  return b.experts(x, moe, options);
}

void build_llama(Builder& b) {
  TensorGraph& g = b.graph;
  TensorId x = b.token_embedding();
  const TensorId pos = b.positions();
  const CacheInputs cache = b.cache_inputs(CacheKind::full);
  const TensorId rows = b.output_rows();
  const bool fused = b.has_tensor("blk.0.attn_qkv.weight");
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const LayerSpec& layer = b.model.layers[i];
    const Attention& a = attention_of(b, i);
    TensorId residual = x;
    Qkv qkv = b.qkv(a, b.norm(x), fused);
    qkv.q = b.rope(qkv.q, pos);
    qkv.k = b.rope(qkv.k, pos);
    TensorId t = b.attend(cache, {a.head_dim, a.v_head_dim, a.n_kv_heads}, qkv);
    t = b.project(t, b.model.hidden_size, a.output_bias);
    if (i + 1 == n_layers) {
      t = b.take_outputs(t, rows);
      residual = b.take_outputs(residual, rows);
    }
    const TensorId middle = g.add(t, residual);
    x = g.add(llama_feed_forward(b, b.norm(middle), layer), middle);
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head(x);
}

}  // namespace

std::span<const ArchitectureRow> llama_family() {
  static constexpr std::array<ArchitectureRow, 1> rows{{{"llama", build_llama}}};
  return rows;
}

}  // namespace kvfathom::llama_cpp
