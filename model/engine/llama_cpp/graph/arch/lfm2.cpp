// LFM2 (src/models/lfm2.cpp): gated short convolutions, attention every few layers.
#include <array>
#include <string>

#include "model/engine/llama_cpp/graph/arch/arch.h"
#include "model/engine/llama_cpp/graph/recurrent.h"
#include "model/error.h"

namespace kvfathom::llama_cpp {

namespace {

TensorId short_convolution(Builder& b, const StateInputs& states, const ShortConv& m, TensorId x) {
  TensorGraph& g = b.graph;
  const std::int64_t tokens = tokens_per_sequence(b);
  const TensorId x3 = g.reshape(x, {b.model.hidden_size, tokens, b.n_sequences, 1});
  const TensorId all = g.project(x3, 3 * m.channels);
  const TensorNode n = g[all];
  const auto part = [&](std::int64_t index) {
    return g.view(all,
                  {m.channels, tokens, b.n_sequences, 1},
                  {n.nb[0], n.nb[1], n.nb[2], n.nb[2] * b.n_sequences},
                  n.nb[0] * (index * m.channels));
  };
  const TensorId gate_in = part(0);
  const TensorId gate_out = part(1);
  const TensorId gated = g.mul(gate_in, part(2));
  const TensorId input = convolution_input(b, states, gated, m.channels, m.d_conv);
  const TensorId y = g.mul(gate_out, convolve(b, input, m.d_conv));
  return g.reshape(g.project(y, b.model.hidden_size), {b.model.hidden_size, b.n_tokens, 1, 1});
}

TensorId attention(
    Builder& b, const Attention& a, const CacheInputs& cache, TensorId x, TensorId pos) {
  Qkv qkv = b.qkv(a, x, false);
  qkv.q = b.rope(b.norm(qkv.q), pos);
  qkv.k = b.rope(b.norm(qkv.k), pos);
  const TensorId t = b.attend(cache, {a.head_dim, a.v_head_dim, a.n_kv_heads}, qkv);
  return b.project(t, b.model.hidden_size);
}

TensorId lfm2_feed_forward(Builder& b, const LayerSpec& layer, TensorId x) {
  if (const auto* dense = std::get_if<DenseFeedForward>(&layer.feed_forward)) {
    return b.feed_forward(x, *dense, Activation::silu);
  }
  const auto& moe = std::get<MixtureOfExperts>(layer.feed_forward);
  MoeOptions options = moe_options(moe);
  options.normalise_weights = true;
  return b.experts(x, moe, options);
}

void build_lfm2(Builder& b) {
  TensorGraph& g = b.graph;
  TensorId x = b.token_embedding();
  const StateInputs states = state_inputs(b);
  const CacheInputs cache = b.cache_inputs(CacheKind::full);
  const TensorId pos = b.positions();
  const TensorId rows = b.output_rows();
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const LayerSpec& layer = b.model.layers[i];
    TensorId t = b.norm(x);
    if (const auto* conv = std::get_if<ShortConv>(&layer.mixer)) {
      t = short_convolution(b, states, *conv, t);
    } else {
      const Attention& a = attention_of(b, i);
      if (a.window_tokens) {
        throw Unsupported("layer " + std::to_string(i),
                          "a sliding window beside short convolutions",
                          "full attention");
      }
      t = attention(b, a, cache, t, pos);
    }
    if (i + 1 == n_layers) {
      t = b.take_outputs(t, rows);
      x = b.take_outputs(x, rows);
    }
    const TensorId middle = g.add(x, t);
    x = g.add(middle, lfm2_feed_forward(b, layer, b.norm(middle)));
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head(x);
}

}  // namespace

std::span<const ArchitectureRow> lfm2_family() {
  static constexpr std::array<ArchitectureRow, 2> kRows{
      {{"lfm2", build_lfm2}, {"lfm2moe", build_lfm2}}};
  return kRows;
}

}  // namespace kvfathom::llama_cpp
