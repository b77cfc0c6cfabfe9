#include "model/engine/llama_cpp/graph/arch/gemma.h"

#include "model/engine/llama_cpp/graph/arch/arch.h"

namespace kvfathom::llama_cpp {

namespace {

/// What a layer attends with; `own_cache` is false where it reads an earlier layer's K and V, that
/// of `cache_layer`.
struct LayerAttention {
  const Attention& shape;
  bool own_cache;
  std::int64_t cache_layer;
};

LayerAttention layer_attention(const Builder& b, std::size_t layer) {
  if (const auto* shared = std::get_if<SharedAttention>(&b.model.layers.at(layer).mixer)) {
    return {shared->attention, false, shared->with_layer};
  }
  return {attention_of(b, layer), true, static_cast<std::int64_t>(layer)};
}

}  // namespace

GemmaCaches gemma_caches(Builder& b) {
  const CacheInputs full = b.cache_inputs(CacheKind::full);
  return {full, b.cache_inputs(CacheKind::window)};
}

TensorId slice(TensorGraph& g, TensorId x, std::int64_t index) {
  const TensorNode n = g[x];
  return g.view(x, {n.ne[0], n.ne[1], 1, 1}, {n.nb[0], n.nb[1], n.nb[2], n.nb[2]}, n.nb[2] * index);
}

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

TensorId gemma_attention(
    Builder& b, std::size_t layer, const GemmaCaches& caches, TensorId x, TensorId pos) {
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
                              {.cache_of_layer = la.cache_layer},
                              true);
  return g.project(t, b.model.hidden_size);
}

}  // namespace kvfathom::llama_cpp
