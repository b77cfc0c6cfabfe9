#include "model/engine/llama_cpp/graph/arch/decoder.h"

#include <algorithm>

namespace kvfathom::llama_cpp {

namespace {

NormKind query_norm_kind(const Builder& b) {
  return b.norm_kind == NormKind::rms ? NormKind::rms : NormKind::layer_no_bias;
}

/// Projections, norms on q and k across all heads before they are cut into heads.
Qkv whole_normed_qkv(Builder& b, const Attention& a, TensorId x) {
  TensorGraph& g = b.graph;
  const auto heads = [&](TensorId t, std::int64_t dim, std::int64_t n) {
    return g.reshape(t, {dim, n, b.n_tokens, 1});
  };
  const TensorId q = b.project(x, a.head_dim * a.n_heads, a.bias);
  const TensorId k = b.project(x, a.head_dim * a.n_kv_heads, a.bias);
  const TensorId v = b.project(x, a.v_head_dim * a.n_kv_heads, a.bias);
  const NormKind kind = query_norm_kind(b);
  return {heads(b.norm(q, kind), a.head_dim, a.n_heads),
          heads(b.norm(k, kind), a.head_dim, a.n_kv_heads),
          heads(v, a.v_head_dim, a.n_kv_heads)};
}

Qkv normed_qkv(Builder& b,
               const DecoderTraits& traits,
               const DecoderInputs& in,
               const Attention& a,
               TensorId x) {
  if (a.qk_norm == QkNorm::all_heads) {
    return whole_normed_qkv(b, a, x);
  }
  Qkv qkv = b.qkv(a, x, in.fused_qkv);
  if (a.qk_norm != QkNorm::none && !traits.norm_after_rotation) {
    const NormKind kind = query_norm_kind(b);
    qkv.q = b.norm(qkv.q, kind);
    qkv.k = b.norm(qkv.k, kind);
  }
  return qkv;
}

MoeOptions routed(const MixtureOfExperts& moe, Routing routing) {
  MoeOptions options = moe_options(moe);
  switch (routing) {
    case Routing::of_the_model:
      break;
    case Routing::softmax_normalised:
    case Routing::softmax_plain:
      options.gating = ExpertGating::softmax;
      options.normalise_weights = routing == Routing::softmax_normalised;
      break;
    case Routing::normalised:
      options.normalise_weights = true;
      break;
    case Routing::sigmoid_on_inputs:
      options.gating = ExpertGating::sigmoid;
      options.normalise_weights = false;
      options.weight_before_experts = true;
      break;
  }
  return options;
}

}  // namespace

DecoderInputs decoder_inputs(Builder& b, const DecoderTraits& traits) {
  b.norm_kind = traits.norm;
  DecoderInputs in;
  in.x = b.token_embedding();
  in.positions = b.positions();
  if (b.model.attention_temperature) {
    in.temperature = b.attention_scale();
  }
  in.full = b.cache_inputs(CacheKind::full);
  if (traits.windows_apart) {
    in.window = b.cache_inputs(CacheKind::window);
  }
  in.outputs = b.output_rows();
  in.fused_qkv = b.model.fused_qkv.value_or(traits.fused_qkv);
  return in;
}

TensorId decoder_attention(
    Builder& b, const DecoderTraits& traits, const DecoderInputs& in, std::size_t i, TensorId x) {
  TensorGraph& g = b.graph;
  const Attention& a = attention_of(b, i);
  const bool window = traits.windows_apart && a.window_tokens.has_value();
  const bool rotates = a.rope_dim > 0;
  Qkv qkv = normed_qkv(b, traits, in, a, x);
  if (rotates) {
    qkv.q = b.rope(qkv.q, in.positions);
    qkv.k = b.rope(qkv.k, in.positions);
    if (traits.norm_after_rotation && a.qk_norm != QkNorm::none) {
      qkv.q = g.rms_norm(qkv.q);
      qkv.k = g.rms_norm(qkv.k);
    }
  }
  const bool tempered = !traits.norm_after_rotation || !rotates;
  if (in.temperature != kNoTensor && tempered) {
    qkv.q = g.mul(qkv.q, in.temperature);
  }
  if (traits.scaled_queries) {
    qkv.q = g.scale(qkv.q);
  }
  const TensorId t = b.attend(window ? in.window : in.full,
                              {a.head_dim, a.v_head_dim, a.n_kv_heads},
                              qkv,
                              {.sinks = a.sinks, .softcap = b.model.attention_softcap},
                              traits.windows_apart);
  return b.project(t, b.model.hidden_size, a.output_bias);
}

TensorId decoder_feed_forward(Builder& b,
                              const DecoderTraits& traits,
                              const FeedForward& ff,
                              TensorId x) {
  TensorGraph& g = b.graph;
  if (const auto* dense = std::get_if<DenseFeedForward>(&ff)) {
    if (traits.merged_gate_up) {
      const TensorId both = b.project(x, 2 * dense->intermediate_size, dense->bias, MatrixRole::up);
      return b.project(g.glu(both, kNoTensor), b.model.hidden_size, dense->bias, MatrixRole::down);
    }
    return b.feed_forward(x, *dense, traits.activation);
  }
  const auto& moe = std::get<MixtureOfExperts>(ff);
  TensorId t = b.experts(x, moe, routed(moe, traits.routing));
  if (moe.shared_intermediate_size > 0) {
    const DenseFeedForward shared{moe.shared_intermediate_size, moe.gated, false};
    TensorId s = b.feed_forward(x, shared, traits.activation);
    if (moe.shared_expert_gate) {
      const TensorId gate = g.project(x, 1, MatrixRole::gate);
      s = g.mul(s, g.like(Op::div, g.unary(gate), {gate}));
    }
    t = g.add(t, s);
  }
  return t;
}

void build_sequential(Builder& b, const DecoderTraits& traits) {
  build_sequential(b, traits, [](const DecoderInputs& in) { return in.x; });
}

void build_sequential(Builder& b,
                      const DecoderTraits& traits,
                      const std::function<TensorId(const DecoderInputs&)>& enter) {
  TensorGraph& g = b.graph;
  const DecoderInputs in = decoder_inputs(b, traits);
  TensorId x = enter(in);
  const std::size_t n_layers = b.model.layers.size();
  const auto scaled = [&](TensorId t) { return b.model.residual_scale == 1.0 ? t : g.scale(t); };
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const LayerSpec& layer = b.model.layers[i];
    const TensorId normed = layer.pre_mixer_norm ? b.norm(x) : x;
    TensorId residual = x;
    TensorId t = decoder_attention(b, traits, in, i, normed);
    if (i + 1 == n_layers) {
      t = b.take_outputs(t, in.outputs);
      residual = b.take_outputs(residual, in.outputs);
    }
    if (layer.post_mixer_norm) {
      t = b.norm(t);
    }
    const TensorId middle = g.add(scaled(t), residual);
    t = layer.pre_feed_forward_norm ? b.norm(middle) : middle;
    t = decoder_feed_forward(b, traits, layer.feed_forward, t);
    if (layer.post_feed_forward_norm) {
      t = b.norm(t, b.norm_kind, !traits.free_post_norm);
    }
    x = traits.residual_first ? g.add(middle, scaled(t)) : g.add(scaled(t), middle);
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head(x);
}

void build_parallel(Builder& b, const DecoderTraits& traits, JoinBlocks join) {
  TensorGraph& g = b.graph;
  const DecoderInputs in = decoder_inputs(b, traits);
  TensorId x = in.x;
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const LayerSpec& layer = b.model.layers[i];
    TensorId normed = b.norm(x);
    const TensorId attended = layer.pre_feed_forward_norm ? b.norm(x) : normed;
    TensorId t = decoder_attention(b, traits, in, i, attended);
    if (i + 1 == n_layers) {
      t = b.take_outputs(t, in.outputs);
      x = b.take_outputs(x, in.outputs);
      normed = b.take_outputs(normed, in.outputs);
    }
    const TensorId forward = decoder_feed_forward(b, traits, layer.feed_forward, normed);
    x = join(g, t, forward, x);
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head(x);
}

}  // namespace kvfathom::llama_cpp
