// Gemma-3n (src/models/gemma3n.cpp): four residual streams of which one is computed and the others
// are predicted and corrected (AltUp, arXiv 2301.13310), a low-rank branch beside attention
// (LAuReL, arXiv 2411.07501), sparse activations in the first layers, per-layer embeddings, and
// layers that share an earlier layer's K and V.
#include <array>
#include <string>

#include "model/engine/llama_cpp/graph/arch/arch.h"
#include "model/engine/llama_cpp/graph/arch/gemma.h"
#include "model/error.h"

namespace kvfathom::llama_cpp {

namespace {

/// Layers whose gates are cut off below a percentile: llama.cpp fixes their number.
constexpr std::size_t kSparseLayers = 10;

/// The stream that attention and feed-forward see: llama.cpp fixes it.
constexpr std::int64_t kActiveStream = 0;

/// Length of every row.
TensorId magnitude(TensorGraph& g, TensorId x) {
  return g.like(Op::sqrt, g.sum_rows(g.like(Op::sqr, x)));
}

/// x, each row made as long as the row of `target`.
TensorId with_magnitude(TensorGraph& g, TensorId x, TensorId target) {
  const TensorId length = magnitude(g, x);
  return g.like(Op::div, g.mul(x, target), {length});
}

/// x[:, :, 1..]
TensorId rest(TensorGraph& g, TensorId x) {
  const TensorNode n = g[x];
  return g.view(
      x, {n.ne[0], n.ne[1], n.ne[2] - 1, 1}, {n.nb[0], n.nb[1], n.nb[2], n.nb[3]}, n.nb[2]);
}

/// [hidden, tokens] to [hidden, tokens, streams].
TensorId enter_streams(Builder& b, TensorId x) {
  TensorGraph& g = b.graph;
  const std::int64_t width = b.model.hidden_size;
  const TensorId target = magnitude(g, x);
  const TensorId repeated = g.repeat(x, {width, b.n_tokens, b.model.altup_inputs - 1, 1});
  const TensorId added = with_magnitude(g, g.project(repeated, width), target);
  return g.concat(x, added, 2);
}

/// [hidden, tokens, streams] to their mean, [hidden, tokens].
TensorId leave_streams(Builder& b, TensorId x) {
  TensorGraph& g = b.graph;
  const TensorId target = magnitude(g, slice(g, x, kActiveStream));
  const TensorId others = with_magnitude(g, g.project(rest(g, x), b.model.hidden_size), target);
  TensorId sum = slice(g, x, 0);
  for (std::int64_t i = 0; i + 1 < b.model.altup_inputs; ++i) {
    sum = g.add(sum, slice(g, others, i));
  }
  return g.scale(sum);
}

/// [streams, tokens]: how the active stream mixes the others in.
TensorId modalities(Builder& b, TensorId x) {
  TensorGraph& g = b.graph;
  return g.unary(g.project(g.scale(b.norm(x)), b.model.altup_inputs));
}

TensorId predict(Builder& b, TensorId x) {
  TensorGraph& g = b.graph;
  const std::int64_t n = b.model.altup_inputs;
  const TensorId coefficients = g.project(modalities(b, slice(g, x, kActiveStream)), n * n);
  const TensorId by_stream = g.reshape(coefficients, {n, n, b.n_tokens, 1});
  const TensorId streams_first = g.cont(g.permute(x, 1, 2, 0, 3));
  const TensorId mixed = g.mul_mat(streams_first, by_stream);
  return g.add(g.cont(g.permute(mixed, 0, 2, 1, 3)), x);
}

TensorId correct(Builder& b, TensorId predictions, TensorId activated) {
  TensorGraph& g = b.graph;
  const std::int64_t n = b.model.altup_inputs;
  const TensorId mix = modalities(b, activated);
  const TensorId innovation = g.like(Op::sub, activated, {slice(g, predictions, kActiveStream)});
  const TensorId coefficients = g.scale(g.project(mix, n));
  const TensorId by_stream = g.cont(g.transpose(coefficients), {1, b.n_tokens, n, 1});
  const TensorId repeated = g.repeat(innovation, {b.model.hidden_size, b.n_tokens, n, 1});
  return g.add(g.mul(repeated, by_stream), predictions);
}

TensorId low_rank_branch(Builder& b, TensorId x) {
  TensorGraph& g = b.graph;
  const TensorId t = g.project(g.project(x, b.model.laurel_rank), b.model.hidden_size);
  return g.add(b.norm(t), x);
}

/// Zero below mean plus some standard deviations of the row.
TensorId cut_off(TensorGraph& g, TensorId x) {
  const Extents ne = g[x].ne;
  const TensorId mean = g.operation(Op::mean, DType::f32, {1, ne[1], ne[2], ne[3]}, {x});
  const TensorId squares = g.sum_rows(g.like(Op::sqr, g.like(Op::sub, x, {mean})));
  const TensorId deviation = g.scale(g.like(Op::sqrt, g.scale(squares)));
  return g.unary(g.like(Op::sub, x, {g.add(mean, deviation)}));
}

TensorId feed_forward(Builder& b, std::size_t layer, TensorId x) {
  TensorGraph& g = b.graph;
  const auto* dense = std::get_if<DenseFeedForward>(&b.model.layers[layer].feed_forward);
  if (dense == nullptr) {
    throw Unsupported("layer " + std::to_string(layer),
                      "a feed-forward that architecture \"gemma3n\" does not have",
                      "a dense one");
  }
  const TensorId up = g.project(x, dense->intermediate_size);
  const TensorId gate = g.project(x, dense->intermediate_size);
  const TensorId active = g.unary(layer < kSparseLayers ? cut_off(g, gate) : gate);
  return g.project(g.mul(up, active), b.model.hidden_size);
}

/// Adds the layer's own embedding to all streams but the first.
TensorId add_layer_embedding(Builder& b, std::size_t layer, TensorId corrected, TensorId inputs) {
  TensorGraph& g = b.graph;
  const TensorId scaled = b.scale_channels(slice(g, corrected, kActiveStream));
  const TensorId gate = g.unary(g.project(scaled, b.model.per_layer_embedding_size));
  const TensorId mine = g.mul(gate, slice(g, inputs, static_cast<std::int64_t>(layer)));
  const TensorId t = b.norm(g.project(mine, b.model.hidden_size));
  const TensorId first = slice(g, corrected, 0);
  return g.concat(first, g.add(rest(g, corrected), t), 2);
}

void require_side_paths(const ModelSpec& model) {
  if (model.altup_inputs < 2 || model.laurel_rank < 1 || model.per_layer_embedding_size < 1) {
    throw Unsupported("model",
                      "architecture \"gemma3n\" with altup_inputs " +
                          std::to_string(model.altup_inputs) + ", laurel_rank " +
                          std::to_string(model.laurel_rank) + ", per_layer_embedding_size " +
                          std::to_string(model.per_layer_embedding_size),
                      "at least 2, 1 and 1");
  }
}

void build_gemma3n(Builder& b) {
  require_side_paths(b.model);
  TensorGraph& g = b.graph;
  TensorId x = b.token_embedding();
  const TensorId pos = b.positions();
  const GemmaCaches caches = gemma_caches(b);
  const TensorId rows = b.output_rows();
  const TensorId inputs = per_layer_inputs(b, x);
  x = enter_streams(b, x);
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const TensorId predictions = predict(b, x);
    const TensorId active = slice(g, predictions, kActiveStream);
    const TensorId normed = b.norm(active);
    const TensorId branch = low_rank_branch(b, normed);
    const TensorId attended = b.norm(gemma_attention(b, i, caches, normed, pos));
    const TensorId middle = g.scale(g.add(g.add(attended, active), branch));
    const TensorId t = b.norm(feed_forward(b, i, b.norm(middle)), b.norm_kind, false);
    const TensorId corrected = correct(b, predictions, g.add(t, middle));
    x = add_layer_embedding(b, i, corrected, inputs);
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head(b.take_outputs(leave_streams(b, x), rows));
}

}  // namespace

std::span<const ArchitectureRow> gemma3n_family() {
  static constexpr std::array<ArchitectureRow, 1> kRows{{{"gemma3n", build_gemma3n}}};
  return kRows;
}

}  // namespace kvfathom::llama_cpp
