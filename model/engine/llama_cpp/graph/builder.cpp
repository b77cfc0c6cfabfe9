#include "model/engine/llama_cpp/graph/builder.h"

#include <algorithm>

namespace kvfathom::llama_cpp {

Builder::Builder(const ModelSpec& spec, const GraphSettings& graph_settings, std::int64_t tokens)
    : model(spec),
      settings(graph_settings),
      n_tokens(tokens),
      n_outputs(graph_settings.n_outputs == 0 ? tokens
                                              : std::min(tokens, graph_settings.n_outputs)),
      n_streams(graph_settings.kv_unified ? 1 : graph_settings.n_seq_max),
      n_sequences(graph_settings.n_seq_max),
      has_rope_factors_(has_tensor("rope_freqs.weight") || has_tensor("rope_factors_long.weight")) {
  graph.set_usual_cells({graph_settings.n_ctx_seq, graph_settings.n_ctx_seq});
  graph.reserve(64 + 128 * spec.layers.size());  // of the catalog no layer has more
}

Affine Builder::cells(CacheKind kind) {
  return kind == CacheKind::full ? Affine{0, kCellBlock, 0} : Affine{0, 0, kCellBlock};
}

bool Builder::has_tensor(std::string_view name) const {
  return std::any_of(
      model.tensors.begin(), model.tensors.end(), [&](const Tensor& t) { return t.name == name; });
}

TensorId Builder::token_embedding() {
  const TensorId tokens = graph.input(DType::i32, {n_tokens, 1, 1, 1});
  const TensorId table = graph.host_weight(DType::f16);
  const TensorId rows = graph.operation(
      Op::get_rows, DType::f32, {model.hidden_size, n_tokens, 1, 1}, {table, tokens});
  graph.expand(rows);
  // the other way in, ready-made embeddings, is part of every graph and allocated though unused
  graph.expand(graph.input(DType::f32, {model.hidden_size, n_tokens, 1, 1}));
  return model.embedding_scale != 1.0 ? graph.scale(rows) : rows;
}

TensorId Builder::positions(std::int64_t per_token) {
  return graph.input(DType::i32, {n_tokens * per_token, 1, 1, 1});
}

TensorId Builder::output_rows() {
  return graph.input(DType::i32, {n_outputs, 1, 1, 1});
}

TensorId Builder::attention_scale() {
  return graph.input(DType::f32, {1, 1, n_tokens, 1});
}

TensorId Builder::norm(TensorId x, NormKind kind, bool in_layer) {
  TensorId t = graph.like(kind == NormKind::rms ? Op::rms_norm : Op::norm, x);
  graph[t].pinned_to_device = in_layer;
  if (kind == NormKind::none) {
    return t;
  }
  t = scale_channels(t);
  return kind == NormKind::layer ? bias(t) : t;
}

TensorId Builder::rope(TensorId x, TensorId pos) {
  const TensorId factors =
      has_rope_factors_ ? graph.rope_factors(graph[x].ne[0].constant / 2) : kNoTensor;
  return graph.like(Op::rope, x, {pos, factors});
}

TensorId Builder::project(TensorId x, std::int64_t n_out, bool with_bias, MatrixRole role) {
  const TensorId t = graph.project(x, n_out, role);
  return with_bias ? bias(t) : t;
}

Qkv Builder::qkv(const Attention& a, TensorId x, bool fused) {
  const std::int64_t n_q = a.head_dim * a.n_heads;
  const std::int64_t n_k = a.head_dim * a.n_kv_heads;
  const std::int64_t n_v = a.v_head_dim * a.n_kv_heads;
  if (fused) {
    const TensorId all = project(x, n_q + n_k + n_v, a.bias);
    const Affine row = graph[all].nb[1];
    const Affine element = graph[all].nb[0];
    const auto part = [&](std::int64_t dim, std::int64_t heads, std::int64_t first) {
      return graph.view(all,
                        {dim, heads, n_tokens, 1},
                        {element, element * dim, row, row * n_tokens},
                        element * first);
    };
    const TensorId q = part(a.head_dim, a.n_heads, 0);
    const TensorId k = part(a.head_dim, a.n_kv_heads, n_q);
    return {q, k, part(a.v_head_dim, a.n_kv_heads, n_q + n_k)};
  }
  const TensorId q = project(x, n_q, a.bias);
  const TensorId k = project(x, n_k, a.bias);
  const TensorId v = project(x, n_v, a.bias);
  const TensorId q3 = graph.reshape(q, {a.head_dim, a.n_heads, n_tokens, 1});
  const TensorId k3 = graph.reshape(k, {a.head_dim, a.n_kv_heads, n_tokens, 1});
  return {q3, k3, graph.reshape(v, {a.v_head_dim, a.n_kv_heads, n_tokens, 1})};
}

TensorId Builder::activate(TensorId x, Activation activation) {
  const TensorId t = graph.unary(x);
  return activation == Activation::relu_squared ? graph.like(Op::sqr, t) : t;
}

TensorId Builder::feed_forward(TensorId x, const DenseFeedForward& ff, Activation activation) {
  const TensorId up = project(x, ff.intermediate_size, ff.bias, MatrixRole::up);
  TensorId t = kNoTensor;
  if (ff.gated) {
    t = graph.glu(project(x, ff.intermediate_size, ff.bias, MatrixRole::gate), up);
  } else {
    t = activate(up, activation);
  }
  return project(t, model.hidden_size, ff.bias, MatrixRole::down);
}

void Builder::head(TensorId x) {
  const TensorId normed = norm(x, norm_kind, false);
  graph.set_output(normed);
  logits(normed);
}

void Builder::head_of_rows(TensorId x, TensorId rows) {
  const TensorId normed = norm(x, model.norm, false);  // a draft head may read all of it
  graph.set_output(normed);
  const TensorId chosen = take_outputs(normed, rows);
  graph.set_output(chosen);
  logits(chosen);
}

void Builder::logits(TensorId x) {
  TensorId t = graph.project(x, model.vocab_size);
  if (model.output_bias) {
    t = bias(t);
  }
  if (model.logit_scale != 1.0) {
    t = graph.scale(t);
  }
  if (model.logit_softcap) {
    t = graph.scale(graph.unary(graph.scale(t)));
  }
  graph.set_output(t);
  graph.expand(t);
}

}  // namespace kvfathom::llama_cpp
