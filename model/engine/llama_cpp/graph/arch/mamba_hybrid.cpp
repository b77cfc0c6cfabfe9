// Mamba layers among or beside attention: Jamba, Falcon-H1, Granite 4 hybrids, Nemotron-H
// (src/models/jamba.cpp, falcon-h1.cpp, granite-hybrid.cpp, nemotron-h.cpp).
#include <array>
#include <string>

#include "model/engine/llama_cpp/graph/arch/arch.h"
#include "model/engine/llama_cpp/graph/recurrent.h"
#include "model/error.h"

namespace kvfathom::llama_cpp {

namespace {

CacheShape shape_of(const Attention& a) {
  return {a.head_dim, a.v_head_dim, a.n_kv_heads};
}

TensorId attention(
    Builder& b, const Attention& a, const CacheInputs& cache, TensorId x, TensorId pos) {
  Qkv qkv = b.qkv(a, x, false);
  if (a.rope_dim > 0 && pos != kNoTensor) {
    qkv.q = b.rope(qkv.q, pos);
    qkv.k = b.rope(qkv.k, pos);
  }
  const TensorId t = b.attend(cache, shape_of(a), qkv);
  return b.project(t, b.model.hidden_size, a.output_bias);
}

TensorId shared_expert(Builder& b, const MixtureOfExperts& moe, TensorId x, Activation activation) {
  return b.feed_forward(x, {moe.shared_intermediate_size, moe.gated, false}, activation);
}

void build_jamba(Builder& b) {
  TensorGraph& g = b.graph;
  TensorId x = b.token_embedding();
  const StateInputs states = state_inputs(b);
  const CacheInputs cache = b.cache_inputs(CacheKind::full);
  const TensorId rows = b.output_rows();
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const LayerSpec& layer = b.model.layers[i];
    TensorId t = b.norm(x);
    if (const auto* mamba = std::get_if<Mamba>(&layer.mixer)) {
      t = mamba_layer(b, states, *mamba, t);
    } else {
      t = attention(b, attention_of(b, i), cache, t, kNoTensor);
    }
    if (i + 1 == n_layers) {
      t = b.take_outputs(t, rows);
      x = b.take_outputs(x, rows);
    }
    const TensorId middle = g.add(x, t);
    t = b.norm(middle);
    if (const auto* moe = std::get_if<MixtureOfExperts>(&layer.feed_forward)) {
      MoeOptions options = moe_options(*moe);
      options.gating = ExpertGating::softmax;
      options.normalise_weights = false;
      t = b.experts(t, *moe, options);
    } else {
      t = b.feed_forward(t, std::get<DenseFeedForward>(layer.feed_forward), Activation::silu);
    }
    x = g.add(middle, t);
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head(x);
}

void build_falcon_h1(Builder& b) {
  TensorGraph& g = b.graph;
  TensorId x = b.token_embedding();
  const TensorId pos = b.positions();
  const StateInputs states = state_inputs(b);
  const CacheInputs cache = b.cache_inputs(CacheKind::full);
  const TensorId rows = b.output_rows();
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const LayerSpec& layer = b.model.layers[i];
    const auto* mixers = std::get_if<ParallelMixers>(&layer.mixer);
    if (mixers == nullptr) {
      throw Unsupported("layer " + std::to_string(i),
                        "a mixer that architecture \"falcon-h1\" does not have",
                        "attention and Mamba-2 side by side");
    }
    // each branch normalises the input for itself
    const TensorId attended = attention(b, mixers->attention, cache, b.norm(x), pos);
    const TensorId scanned = mamba2_layer(b, states, mixers->mamba2, b.norm(x));
    TensorId middle = g.add(g.add(attended, scanned), x);
    if (i + 1 == n_layers) {
      middle = b.take_outputs(middle, rows);
    }
    const TensorId t = b.feed_forward(
        b.norm(middle), std::get<DenseFeedForward>(layer.feed_forward), Activation::silu);
    x = g.add(t, middle);
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head(x);
}

TensorId granite_feed_forward(Builder& b, const LayerSpec& layer, TensorId x) {
  if (const auto* dense = std::get_if<DenseFeedForward>(&layer.feed_forward)) {
    return b.feed_forward(x, *dense, Activation::silu);
  }
  const auto& moe = std::get<MixtureOfExperts>(layer.feed_forward);
  MoeOptions options = moe_options(moe);
  options.gating = ExpertGating::softmax;
  options.normalise_weights = true;
  const TensorId routed = b.experts(x, moe, options);
  if (moe.shared_intermediate_size == 0) {
    return routed;
  }
  return b.graph.add(routed, shared_expert(b, moe, x, Activation::silu));
}

void build_granite_hybrid(Builder& b) {
  TensorGraph& g = b.graph;
  TensorId x = b.token_embedding();
  const StateInputs states = state_inputs(b);
  const CacheInputs cache = b.cache_inputs(CacheKind::full);
  const TensorId rows = b.output_rows();
  const TensorId pos = b.positions();
  const bool scaled = b.model.residual_scale != 1.0;
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const LayerSpec& layer = b.model.layers[i];
    TensorId t = b.norm(x);
    if (const auto* mamba = std::get_if<Mamba2>(&layer.mixer)) {
      t = mamba2_layer(b, states, *mamba, t);
    } else {
      t = attention(b, attention_of(b, i), cache, t, pos);
    }
    if (i + 1 == n_layers) {
      t = b.take_outputs(t, rows);
      x = b.take_outputs(x, rows);
    }
    const TensorId middle = g.add(scaled ? g.scale(t) : t, x);
    t = granite_feed_forward(b, layer, b.norm(middle));
    x = g.add(scaled ? g.scale(t) : t, middle);
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head(x);
}

TensorId nemotron_feed_forward(Builder& b, const LayerSpec& layer, TensorId x) {
  if (const auto* dense = std::get_if<DenseFeedForward>(&layer.feed_forward)) {
    return b.feed_forward(x, *dense, Activation::relu_squared);
  }
  TensorGraph& g = b.graph;
  const auto& moe = std::get<MixtureOfExperts>(layer.feed_forward);
  MoeOptions options = moe_options(moe);
  options.gating = ExpertGating::sigmoid;
  options.activation = Activation::relu_squared;
  options.gated = false;
  const TensorId narrow = moe.latent_size > 0 ? g.project(x, moe.latent_size) : x;
  options.logits = g.project(x, moe.n_experts, MatrixRole::gate);
  TensorId routed = b.experts(narrow, moe, options);
  routed = moe.latent_size > 0 ? g.project(routed, b.model.hidden_size) : routed;
  const DenseFeedForward shared{moe.shared_intermediate_size, false, false};
  return g.add(routed, b.feed_forward(x, shared, Activation::relu_squared));
}

/// Every layer is one thing only: a state layer, attention, or a feed-forward.
void build_nemotron_h(Builder& b) {
  TensorGraph& g = b.graph;
  TensorId x = b.token_embedding();
  const StateInputs states = state_inputs(b);
  const CacheInputs cache = b.cache_inputs(CacheKind::full);
  const TensorId rows = b.output_rows();
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const LayerSpec& layer = b.model.layers[i];
    TensorId t = b.norm(x);
    if (const auto* mamba = std::get_if<Mamba2>(&layer.mixer)) {
      t = mamba2_layer(b, states, *mamba, t);
    } else if (std::holds_alternative<NoMixer>(layer.mixer)) {
      t = nemotron_feed_forward(b, layer, t);
    } else {
      t = attention(b, attention_of(b, i), cache, t, kNoTensor);
    }
    x = g.add(t, x);
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head_of_rows(x, rows);
}

}  // namespace

std::span<const ArchitectureRow> mamba_hybrid_family() {
  static constexpr std::array<ArchitectureRow, 5> kRows{{{"jamba", build_jamba},
                                                         {"falcon-h1", build_falcon_h1},
                                                         {"granitehybrid", build_granite_hybrid},
                                                         {"nemotron_h", build_nemotron_h},
                                                         {"nemotron_h_moe", build_nemotron_h}}};
  return kRows;
}

}  // namespace kvfathom::llama_cpp
