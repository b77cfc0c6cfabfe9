// Gated delta nets with full attention every few layers: Qwen3-Next, Qwen3.5
// (src/models/qwen3next.cpp, qwen35.cpp, qwen35moe.cpp).
#include <array>
#include <string>

#include "model/engine/llama_cpp/graph/arch/arch.h"
#include "model/engine/llama_cpp/graph/recurrent.h"
#include "model/error.h"

namespace kvfathom::llama_cpp {

namespace {

enum class Generation : std::uint8_t { qwen3_next, qwen3_5 };

/// What a layer decides before its convolution: the decay and the strength of its updates.
struct Gates {
  TensorId decay = kNoTensor;
  TensorId beta = kNoTensor;
};

Gates joint_gates(Builder& b, const GatedDeltaNet& m, TensorId x) {
  TensorGraph& g = b.graph;
  const std::int64_t tokens = tokens_per_sequence(b);
  const std::int64_t ratio = m.n_v_heads / m.n_k_heads;
  const TensorId both =
      g.reshape(g.project(x, 2 * m.n_v_heads), {2 * ratio, m.n_k_heads, tokens, b.n_sequences});
  const TensorNode n = g[both];
  const Extents ne{ratio, m.n_k_heads, tokens, b.n_sequences};
  const TensorId first = g.view(both, ne, n.nb);
  const TensorId second = g.view(both, ne, n.nb, n.nb[0] * ratio);
  const TensorId beta = g.unary(g.cont(first));
  const TensorId alpha = g.cont(second, {m.n_v_heads, tokens, b.n_sequences, 1});
  const TensorId decay = b.scale_channels(g.unary(b.bias(alpha)));
  const Extents column{1, m.n_v_heads, tokens, b.n_sequences};
  return {g.reshape(decay, column), g.reshape(beta, column)};
}

Gates separate_gates(Builder& b, const GatedDeltaNet& m, TensorId x) {
  TensorGraph& g = b.graph;
  const std::int64_t tokens = tokens_per_sequence(b);
  const Extents column{1, m.n_v_heads, tokens, b.n_sequences};
  const TensorId beta = g.unary(g.reshape(g.project(x, m.n_v_heads), column));
  const TensorId alpha =
      g.reshape(g.project(x, m.n_v_heads), {m.n_v_heads, tokens, b.n_sequences, 1});
  const TensorId decay = b.scale_channels(g.unary(b.bias(alpha)));
  return {g.reshape(decay, column), beta};
}

/// Every key head as often as it has value heads.
TensorId repeat_heads(Builder& b, const GatedDeltaNet& m, TensorId x) {
  TensorGraph& g = b.graph;
  const std::int64_t tokens = tokens_per_sequence(b);
  const std::int64_t ratio = m.n_v_heads / m.n_k_heads;
  const TensorId t = g.reshape(x, {m.k_head_dim, 1, m.n_k_heads, b.n_tokens});
  return g.reshape(g.repeat(t, {m.k_head_dim, ratio, m.n_k_heads, b.n_tokens}),
                   {m.k_head_dim, m.n_v_heads, tokens, b.n_sequences});
}

TensorId delta_net_layer(Builder& b,
                         const StateInputs& states,
                         const GatedDeltaNet& m,
                         Generation generation,
                         TensorId x) {
  TensorGraph& g = b.graph;
  const std::int64_t tokens = tokens_per_sequence(b);
  const std::int64_t n_k = m.k_head_dim * m.n_k_heads;
  const std::int64_t n_v = m.v_head_dim * m.n_v_heads;
  const std::int64_t channels = 2 * n_k + n_v;
  const TensorId mixed = g.reshape(g.project(x, channels), {channels, tokens, b.n_sequences, 1});
  const TensorId z = g.project(x, n_v);
  const Gates gates =
      generation == Generation::qwen3_next ? joint_gates(b, m, x) : separate_gates(b, m, x);
  const TensorId input = convolution_input(b, states, mixed, channels, m.d_conv);
  const TensorId all = state_tensor(b, m.v_head_dim * m.v_head_dim * m.n_v_heads);
  const TensorId state = g.reshape(read_state(b, states, all),
                                   {m.v_head_dim, m.v_head_dim, m.n_v_heads, b.n_sequences});
  const TensorId t = g.unary(convolve(b, input, m.d_conv));
  const TensorNode n = g[t];
  const auto part = [&](std::int64_t dim, std::int64_t heads, std::int64_t first) {
    return g.view(t,
                  {dim, heads, tokens, b.n_sequences},
                  {n.nb[0], n.nb[0] * dim, n.nb[1], n.nb[2]},
                  n.nb[0] * first);
  };
  DeltaNetOperands operands;
  operands.q = g.like(Op::l2_norm, part(m.k_head_dim, m.n_k_heads, 0));
  operands.k = g.like(Op::l2_norm, part(m.k_head_dim, m.n_k_heads, n_k));
  operands.v = part(m.v_head_dim, m.n_v_heads, 2 * n_k);
  if (generation == Generation::qwen3_next && m.n_k_heads != m.n_v_heads) {
    operands.q = repeat_heads(b, m, operands.q);
    operands.k = repeat_heads(b, m, operands.k);
  }
  operands.gate = gates.decay;
  operands.beta = gates.beta;
  operands.state = state;
  const TensorId out = delta_rule(b, operands, all);
  const TensorId z4 = g.reshape(z, {m.v_head_dim, m.n_v_heads, tokens, b.n_sequences});
  const TensorId normed = b.norm(out);
  const TensorId gated = g.mul(normed, g.unary(z4));
  const TensorId flat = g.reshape(gated, {n_v, tokens, b.n_sequences, 1});
  return g.reshape(g.project(flat, b.model.hidden_size), {b.model.hidden_size, b.n_tokens, 1, 1});
}

/// Attention whose query projection also makes a gate on the result.
TensorId gated_attention(Builder& b,
                         const Attention& a,
                         const CacheInputs& cache,
                         Generation generation,
                         TensorId x,
                         TensorId pos) {
  TensorGraph& g = b.graph;
  const std::int64_t n_q = a.head_dim * a.n_heads;
  const bool older = generation == Generation::qwen3_next;
  TensorId both = g.project(x, 2 * n_q);
  if (older) {
    both = g.reshape(both, {2 * a.head_dim, a.n_heads, b.n_tokens, 1});
  }
  const Affine element = g[both].nb[0];
  const Extents strides{
      element, element * (2 * a.head_dim), element * (2 * n_q), element * (2 * n_q * b.n_tokens)};
  const Extents ne{a.head_dim, a.n_heads, b.n_tokens, 1};
  const TensorId query = g.view(both, ne, strides);
  TensorId gate = g.view(both, ne, strides, element * a.head_dim);
  const TensorId key = g.project(x, a.head_dim * a.n_kv_heads);
  const TensorId value = g.project(x, a.v_head_dim * a.n_kv_heads);
  Qkv qkv;
  qkv.q = b.rope(b.norm(query), pos);
  qkv.k = b.rope(b.norm(g.reshape(key, {a.head_dim, a.n_kv_heads, b.n_tokens, 1})), pos);
  qkv.v = g.reshape(value, {a.v_head_dim, a.n_kv_heads, b.n_tokens, 1});
  const TensorId t = b.attend(cache, {a.head_dim, a.v_head_dim, a.n_kv_heads}, qkv);
  gate = g.unary(g.cont(gate, {n_q, b.n_tokens, 1, 1}));
  return g.project(g.mul(t, gate), b.model.hidden_size);
}

TensorId qwen_feed_forward(Builder& b, const LayerSpec& layer, TensorId x) {
  if (const auto* dense = std::get_if<DenseFeedForward>(&layer.feed_forward)) {
    return b.feed_forward(x, *dense, Activation::silu);
  }
  TensorGraph& g = b.graph;
  const auto& moe = std::get<MixtureOfExperts>(layer.feed_forward);
  MoeOptions options = moe_options(moe);
  options.gating = ExpertGating::softmax;
  options.normalise_weights = true;
  options.merged_gate_up = b.has_tensor("blk.1.ffn_gate_up_exps.weight");
  const TensorId routed = b.experts(x, moe, options);
  if (moe.shared_intermediate_size == 0) {
    return routed;
  }
  const TensorId shared =
      b.feed_forward(x, {moe.shared_intermediate_size, true, false}, Activation::silu);
  return g.add(routed, g.mul(shared, g.unary(g.project(x, 1, MatrixRole::gate))));
}

void build(Builder& b, Generation generation) {
  TensorGraph& g = b.graph;
  TensorId x = b.token_embedding();
  const StateInputs states = state_inputs(b);
  const CacheInputs cache = b.cache_inputs(CacheKind::full);
  const TensorId pos = b.positions(generation == Generation::qwen3_next ? 1 : 4);
  const TensorId rows = b.output_rows();
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const LayerSpec& layer = b.model.layers[i];
    TensorId t = b.norm(x);
    g.expand(t);
    if (const auto* net = std::get_if<GatedDeltaNet>(&layer.mixer)) {
      t = delta_net_layer(b, states, *net, generation, t);
    } else {
      t = gated_attention(b, attention_of(b, i), cache, generation, t, pos);
    }
    const TensorId middle = g.add(t, x);
    x = g.add(qwen_feed_forward(b, layer, b.norm(middle)), middle);
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head_of_rows(x, rows);
}

void build_qwen3_next(Builder& b) {
  build(b, Generation::qwen3_next);
}

void build_qwen3_5(Builder& b) {
  build(b, Generation::qwen3_5);
}

}  // namespace

std::span<const ArchitectureRow> delta_net_family() {
  static constexpr std::array<ArchitectureRow, 3> kRows{
      {{"qwen3next", build_qwen3_next}, {"qwen35", build_qwen3_5}, {"qwen35moe", build_qwen3_5}}};
  return kRows;
}

}  // namespace kvfathom::llama_cpp
