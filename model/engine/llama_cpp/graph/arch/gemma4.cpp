// Gemma 4 (src/models/gemma4.cpp): windows beside wider full attention, layers that share an
// earlier layer's K and V, per-layer embeddings, experts beside a dense feed-forward.
#include <array>
#include <string>

#include "model/engine/llama_cpp/graph/arch/arch.h"
#include "model/engine/llama_cpp/graph/arch/gemma.h"
#include "model/error.h"

namespace kvfathom::llama_cpp {

namespace {

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
  const TensorId routed = b.scale_channels(g.scale(g.rms_norm(middle)));
  MoeOptions options = moe_options(moe);
  options.gating = ExpertGating::softmax;
  options.normalise_weights = true;
  options.scale_weights = false;
  options.merged_gate_up = b.has_tensor("blk.0.ffn_gate_up_exps.weight");
  options.logits = g.project(routed, moe.n_experts, MatrixRole::gate);
  return g.add(dense, b.norm(b.experts(x, moe, options)));
}

TensorId add_layer_embedding(Builder& b, std::size_t layer, TensorId x, TensorId inputs) {
  TensorGraph& g = b.graph;
  const std::int64_t width = b.model.per_layer_embedding_size;
  const TensorId gate = g.unary(g.project(x, width));
  const TensorId mine = slice(g, inputs, static_cast<std::int64_t>(layer));
  const TensorId t = g.project(g.mul(gate, mine), b.model.hidden_size);
  return g.add(x, b.norm(t));
}

void build_gemma4(Builder& b) {
  TensorGraph& g = b.graph;
  TensorId x = b.token_embedding();
  const TensorId pos = b.positions();
  const GemmaCaches caches = gemma_caches(b);
  const TensorId rows = b.output_rows();
  const bool per_layer = b.model.per_layer_embedding_size > 0;
  const TensorId inputs = per_layer ? per_layer_inputs(b, x) : kNoTensor;
  const bool scaled = b.model.tensors.empty() || b.has_tensor("blk.0.layer_output_scale.weight");
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const LayerSpec& layer = b.model.layers[i];
    const TensorId attended = gemma_attention(b, i, caches, b.norm(x), pos);
    const TensorId middle = g.add(b.norm(attended), x);
    const TensorId t = gemma4_feed_forward(b, layer, middle);
    x = g.add(b.norm(t, b.model.norm, false), middle);
    if (per_layer) {
      x = add_layer_embedding(b, i, x, inputs);
    }
    x = scaled ? g.mul(x, g.layer_weight(DType::f32, {1, 1, 1, 1})) : x;
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head_of_rows(x, rows);
}

}  // namespace

std::span<const ArchitectureRow> gemma4_family() {
  static constexpr std::array<ArchitectureRow, 1> kRows{{{"gemma4", build_gemma4}}};
  return kRows;
}

}  // namespace kvfathom::llama_cpp
