// Gemma 2 and 3 (src/models/gemma*.cpp): windows beside full attention, norms before and after.
#include <algorithm>
#include <array>

#include "model/engine/llama_cpp/graph/arch/arch.h"

namespace kvfathom::llama_cpp {

namespace {

void build_gemma3(Builder& b) {
  TensorGraph& g = b.graph;
  TensorId x = b.token_embedding();
  const TensorId pos = b.positions();
  const CacheInputs full = b.cache_inputs(CacheKind::full);
  const CacheInputs window = b.cache_inputs(CacheKind::window);
  const TensorId rows = b.output_rows();
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const LayerSpec& layer = b.model.layers[i];
    const Attention& a = attention_of(b, i);
    Qkv qkv = b.qkv(a, b.norm(x), false);
    const bool normed = a.qk_norm != QkNorm::none;
    qkv.q = g.scale(b.rope(normed ? b.norm(qkv.q) : qkv.q, pos));
    qkv.k = b.rope(normed ? b.norm(qkv.k) : qkv.k, pos);
    TensorId t = b.attend(a.window_tokens ? window : full,
                          {a.head_dim, a.v_head_dim, a.n_kv_heads},
                          qkv,
                          {.softcap = b.model.attention_softcap},
                          true);
    t = b.project(t, b.model.hidden_size);
    if (i + 1 == n_layers) {
      t = b.take_outputs(t, rows);
      x = b.take_outputs(x, rows);
    }
    const TensorId middle = g.add(b.norm(t), x);
    t = b.feed_forward(
        b.norm(middle), std::get<DenseFeedForward>(layer.feed_forward), Activation::gelu);
    x = g.add(b.norm(t, b.model.norm, false), middle);
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head(x);
}

}  // namespace

std::span<const ArchitectureRow> gemma_family() {
  static constexpr std::array<ArchitectureRow, 2> rows{
      {{"gemma2", build_gemma3}, {"gemma3", build_gemma3}}};
  return rows;
}

}  // namespace kvfathom::llama_cpp
