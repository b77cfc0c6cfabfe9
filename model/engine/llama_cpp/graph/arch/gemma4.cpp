// Gemma 4 (src/models/gemma4.cpp): windows beside wider full attention, layers that share an
// earlier layer's K and V, per-layer embeddings, experts beside a dense feed-forward.
#include <array>
#include <string>

#include "model/engine/llama_cpp/graph/arch/arch.h"
#include "model/error.h"

namespace kvfathom::llama_cpp {

namespace {

/// What a layer attends with; `own_cache` is false where it reads an earlier layer's K and V.
struct LayerAttention {
  const Attention& shape;
  bool own_cache;
};

LayerAttention layer_attention(const Builder& b, std::size_t layer) {
  if (const auto* shared = std::get_if<SharedAttention>(&b.model.layers.at(layer).mixer)) {
    return {shared->attention, false};
  }
  return {attention_of(b, layer), true};
}

/// [width, tokens, layers]: every layer's own embedding of the tokens; its table is on the host.
TensorId per_layer_inputs(Builder& b, TensorId x) {
  TensorGraph& g = b.graph;
  const std::int64_t width = b.model.per_layer_embedding_size;
  const auto n_layers = static_cast<std::int64_t>(b.model.layers.size());
  const TensorId tokens = g.input(DType::i32, {b.n_tokens, 1, 1, 1});
  const TensorId rows = g.operation(Op::get_rows,
                                    DType::f32,
                                    {width * n_layers, b.n_tokens, 1, 1},
                                    {g.host_weight(DType::f16), tokens});
  const TensorId looked_up = g.scale(g.reshape(rows, {width, n_layers, b.n_tokens, 1}));
  g.expand(looked_up);
  const TensorId made = g.project(x, width * n_layers);
  const TensorId scaled = g.reshape(g.scale(made), {width, n_layers, b.n_tokens, 1});
  const TensorId normed = b.norm(scaled, NormKind::rms, false);
  const TensorId sum = g.scale(g.add(normed, looked_up));
  return g.cont(g.permute(sum, 0, 2, 1, 3));
}

struct Gemma4Caches {
  CacheInputs full;
  CacheInputs window;
};

TensorId attention(
    Builder& b, std::size_t layer, const Gemma4Caches& caches, TensorId x, TensorId pos) {
  TensorGraph& g = b.graph;
  const LayerAttention la = layer_attention(b, layer);
  const Attention& a = la.shape;
  Qkv qkv;
  const TensorId q =
      g.reshape(g.project(x, a.head_dim * a.n_heads), {a.head_dim, a.n_heads, b.n_tokens, 1});
  qkv.q = b.rope(b.norm(q), pos);
  if (la.own_cache) {
    const Extents heads{a.head_dim, a.n_kv_heads, b.n_tokens, 1};
    const TensorId k = g.project(x, a.head_dim * a.n_kv_heads);
    const TensorId v = a.v_is_k ? k : g.project(x, a.v_head_dim * a.n_kv_heads);
    const TensorId k3 = g.reshape(k, heads);
    const TensorId v3 = g.reshape(v, heads);
    qkv.k = b.rope(b.norm(k3), pos);
    qkv.v = g.rms_norm(v3);
  }
  const TensorId t = b.attend(a.window_tokens ? caches.window : caches.full,
                              {a.head_dim, a.v_head_dim, a.n_kv_heads},
                              qkv,
                              {},
                              true);
  return g.project(t, b.model.hidden_size);
}

TensorId gemma4_feed_forward(Builder& b, const LayerSpec& layer, TensorId middle) {
  TensorGraph& g = b.graph;
  if (const auto* dense = std::get_if<DenseFeedForward>(&layer.feed_forward)) {
    return b.feed_forward(b.norm(middle), *dense, Activation::gelu);
  }
  const auto& moe = std::get<MixtureOfExperts>(layer.feed_forward);
  const DenseFeedForward beside{moe.dense_intermediate_size, true, false};
  const TensorId dense = b.norm(b.feed_forward(b.norm(middle), beside, Activation::gelu));
  const TensorId x = b.norm(middle);
  // the router has a norm and a scale of its own
  const TensorId routed = g.mul(g.scale(g.rms_norm(middle)), g.device_weight());
  MoeOptions options = moe_options(moe);
  options.gating = ExpertGating::softmax;
  options.normalise_weights = true;
  options.scale_weights = false;
  options.merged_gate_up = b.has_tensor("blk.0.ffn_gate_up_exps.weight");
  options.logits = g.project(routed, moe.n_experts);
  return g.add(dense, b.norm(b.experts(x, moe, options)));
}

TensorId add_layer_embedding(Builder& b, std::size_t layer, TensorId x, TensorId inputs) {
  TensorGraph& g = b.graph;
  const std::int64_t width = b.model.per_layer_embedding_size;
  const TensorId gate = g.unary(g.project(x, width));
  const TensorNode n = g[inputs];
  const TensorId mine = g.view(inputs,
                               {width, b.n_tokens, 1, 1},
                               {n.nb[0], n.nb[1], n.nb[1] * b.n_tokens, n.nb[1] * b.n_tokens},
                               n.nb[2] * static_cast<std::int64_t>(layer));
  const TensorId t = g.project(g.mul(gate, mine), b.model.hidden_size);
  return g.add(x, b.norm(t));
}

void build_gemma4(Builder& b) {
  TensorGraph& g = b.graph;
  TensorId x = b.token_embedding();
  const TensorId pos = b.positions();
  const Gemma4Caches caches{b.cache_inputs(CacheKind::full), b.cache_inputs(CacheKind::window)};
  const TensorId rows = b.output_rows();
  const bool per_layer = b.model.per_layer_embedding_size > 0;
  const TensorId inputs = per_layer ? per_layer_inputs(b, x) : kNoTensor;
  const bool scaled = b.model.tensors.empty() || b.has_tensor("blk.0.layer_output_scale.weight");
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const LayerSpec& layer = b.model.layers[i];
    const TensorId attended = attention(b, i, caches, b.norm(x), pos);
    const TensorId middle = g.add(b.norm(attended), x);
    const TensorId t = gemma4_feed_forward(b, layer, middle);
    x = g.add(b.norm(t, b.model.norm, false), middle);
    if (per_layer) {
      x = add_layer_embedding(b, i, x, inputs);
    }
    x = scaled ? g.mul(x, g.device_weight()) : x;
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head_of_rows(x, rows);
}

}  // namespace

std::span<const ArchitectureRow> gemma4_family() {
  static constexpr std::array<ArchitectureRow, 1> rows{{{"gemma4", build_gemma4}}};
  return rows;
}

}  // namespace kvfathom::llama_cpp
