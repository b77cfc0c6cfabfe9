// DeepSeek V2/V3 and what shares their latent attention (src/models/deepseek2.cpp), with the sparse
// indexer of DeepSeek V3.2 and GLM-5 (deepseek32.cpp, glm-dsa.cpp).
#include <array>

#include "model/engine/engine.h"
#include "model/engine/llama_cpp/graph/arch/arch.h"
#include "model/error.h"

namespace kvfathom::llama_cpp {

namespace {

/// The layer's latent attention, also where the model is seen as caching K and V of every head.
LatentAttention latent(const Builder& b, std::size_t layer) {
  const Mixer& mixer = b.model.layers.at(layer).mixer;
  if (const auto* m = std::get_if<LatentAttention>(&mixer)) {
    return *m;
  }
  const auto* a = std::get_if<Attention>(&mixer);
  if (a == nullptr || a->kv_lora_rank == 0) {
    throw Unsupported("layer " + std::to_string(layer),
                      "a mixer that architecture \"" + b.model.architecture + "\" does not have",
                      "multi-head latent attention");
  }
  return {.n_heads = a->n_heads,
          .q_lora_rank = a->q_lora_rank,
          .kv_lora_rank = a->kv_lora_rank,
          .qk_nope_head_dim = a->head_dim - a->rope_dim,
          .qk_rope_head_dim = a->rope_dim,
          .v_head_dim = a->v_head_dim,
          .indexer = {}};
}

struct LatentParts {
  TensorId q = kNoTensor;       ///< [nope + rope, heads, tokens]
  TensorId latent = kNoTensor;  ///< normalised
  TensorId k_rope = kNoTensor;  ///< rotated, [rope, 1, tokens]
};

/// What queries are projected from: the input itself, or its low-rank projection.
TensorId query_input(Builder& b, const LatentAttention& m, TensorId x) {
  return m.q_lora_rank > 0 ? b.norm(b.graph.project(x, m.q_lora_rank)) : x;
}

LatentParts latent_parts(
    Builder& b, const LatentAttention& m, TensorId x, TensorId query, TensorId pos) {
  TensorGraph& g = b.graph;
  const std::int64_t head = m.qk_nope_head_dim + m.qk_rope_head_dim;
  LatentParts parts;
  parts.q = g.reshape(g.project(query, head * m.n_heads), {head, m.n_heads, b.n_tokens, 1});
  const TensorId both = g.project(x, m.kv_lora_rank + m.qk_rope_head_dim);
  const TensorNode n = g[both];
  const TensorId kv = g.view(both,
                             {m.kv_lora_rank, b.n_tokens, 1, 1},
                             {n.nb[0], n.nb[1], n.nb[1] * b.n_tokens, n.nb[1] * b.n_tokens});
  const TensorId pe = g.view(both,
                             {m.qk_rope_head_dim, 1, b.n_tokens, 1},
                             {n.nb[0], n.nb[1], n.nb[1], n.nb[1] * b.n_tokens},
                             n.nb[0] * m.kv_lora_rank);
  parts.k_rope = b.rope(pe, pos);
  parts.latent = b.norm(kv);
  return parts;
}

/// Queries move into the latent space: one KV head, K-only cache.
TensorId absorbed_attention(Builder& b,
                            const LatentAttention& m,
                            const LatentParts& parts,
                            TensorId pos,
                            TensorId scale,
                            const CacheInputs& cache,
                            TensorId chosen = kNoTensor) {
  TensorGraph& g = b.graph;
  const TensorNode q = g[parts.q];
  const TensorId nope = g.view(parts.q, {m.qk_nope_head_dim, m.n_heads, b.n_tokens, 1}, q.nb);
  const TensorId pe = g.view(
      parts.q, {m.qk_rope_head_dim, m.n_heads, b.n_tokens, 1}, q.nb, q.nb[0] * m.qk_nope_head_dim);
  const TensorId rotated = b.rope(pe, pos);
  TensorId absorbed = g.project(g.permute(nope, 0, 2, 1, 3), m.kv_lora_rank);
  absorbed = g.permute(absorbed, 0, 2, 1, 3);
  Qkv x;
  x.q = g.concat(absorbed, rotated, 0);
  x.v = g.reshape(parts.latent, {m.kv_lora_rank, 1, b.n_tokens, 1});
  x.k = g.concat(x.v, parts.k_rope, 0);
  x.q = scale == kNoTensor ? x.q : g.mul(x.q, scale);
  if (b.settings.latent == CacheScheme::mla_with_v) {
    return b.attend(cache,
                    {m.kv_lora_rank + m.qk_rope_head_dim, m.kv_lora_rank, 1},
                    x,
                    {.decompressed_v_dim = m.v_head_dim});
  }
  return b.attend_k_only(cache,
                         {m.kv_lora_rank + m.qk_rope_head_dim, m.kv_lora_rank, 1},
                         x,
                         {.decompressed_v_dim = m.v_head_dim, .chosen_cells = chosen});
}

/// K and V of every head, as if it were plain multi-head attention.
TensorId expanded_attention(Builder& b,
                            const LatentAttention& m,
                            const LatentParts& parts,
                            TensorId pos,
                            TensorId scale,
                            const CacheInputs& cache) {
  TensorGraph& g = b.graph;
  const std::int64_t per_head = m.qk_nope_head_dim + m.v_head_dim;
  const TensorId kv = g.project(parts.latent, per_head * m.n_heads);
  const TensorNode n = g[kv];
  const Extents strides{
      n.nb[0], n.nb[0] * per_head, n.nb[0] * (per_head * m.n_heads), n.nb[1] * b.n_tokens};
  const TensorId nope = g.view(kv, {m.qk_nope_head_dim, m.n_heads, b.n_tokens, 1}, strides);
  const TensorId v =
      g.view(kv, {m.v_head_dim, m.n_heads, b.n_tokens, 1}, strides, n.nb[0] * m.qk_nope_head_dim);
  Qkv x;
  x.v = g.cont(v);
  x.q = b.rope(parts.q, pos);
  x.k = g.concat(nope, g.repeat(parts.k_rope, {m.qk_rope_head_dim, m.n_heads, b.n_tokens, 1}), 0);
  x.q = scale == kNoTensor ? x.q : g.mul(x.q, scale);
  return b.attend(cache, {m.qk_nope_head_dim + m.qk_rope_head_dim, m.v_head_dim, m.n_heads}, x);
}

TensorId deepseek_feed_forward(Builder& b, TensorId x, const LayerSpec& layer) {
  if (const auto* dense = std::get_if<DenseFeedForward>(&layer.feed_forward)) {
    return b.feed_forward(x, *dense, Activation::silu);
  }
  const auto& moe = std::get<MixtureOfExperts>(layer.feed_forward);
  MoeOptions options = moe_options(moe);
  const TensorId routed = b.experts(x, moe, options);
  const DenseFeedForward shared{moe.shared_intermediate_size, true, false};
  return b.graph.add(routed, b.feed_forward(x, shared, Activation::silu));
}

void build_deepseek2(Builder& b) {
  TensorGraph& g = b.graph;
  const bool absorbed = b.settings.latent != CacheScheme::mla_expanded &&
                        std::holds_alternative<LatentAttention>(b.model.layers.front().mixer);
  const bool k_only = absorbed && b.settings.latent == CacheScheme::mla_latent;
  TensorId x = b.token_embedding();
  const TensorId pos = b.positions();
  const TensorId scale = b.model.attention_temperature ? b.attention_scale() : kNoTensor;
  const CacheInputs cache = k_only ? b.k_only_inputs() : b.cache_inputs(CacheKind::full);
  const TensorId rows = b.output_rows();
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const LayerSpec& layer = b.model.layers[i];
    const LatentAttention m = latent(b, i);
    TensorId residual = x;
    const TensorId normed = b.norm(x);
    const LatentParts parts = latent_parts(b, m, normed, query_input(b, m, normed), pos);
    TensorId t = absorbed ? absorbed_attention(b, m, parts, pos, scale, cache)
                          : expanded_attention(b, m, parts, pos, scale, cache);
    t = g.project(t, b.model.hidden_size);
    if (i + 1 == n_layers) {
      t = b.take_outputs(t, rows);
      residual = b.take_outputs(residual, rows);
    }
    const TensorId middle = g.add(t, residual);
    x = g.add(deepseek_feed_forward(b, b.norm(middle), layer), middle);
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head(x);
}

/// Inputs of the cache of indexer keys.
struct IndexerInputs {
  CacheInputs cache;
  TensorId rotation = kNoTensor;
  bool fused = true;  ///< scores in one operation
};

IndexerInputs indexer_inputs(Builder& b, const Indexer& indexer) {
  IndexerInputs in;
  in.fused = b.fused_indexer(indexer);
  in.cache = b.k_only_inputs();
  in.cache.mask = b.mask(CacheKind::full, in.fused ? DType::f16 : DType::f32);
  in.rotation = b.graph.input(DType::f32, {indexer.head_dim, indexer.head_dim, 1, 1});
  return in;
}

/// Scores of every cell for every token, without the fused operation: [cells, tokens, 1, streams].
TensorId indexer_scores(Builder& b, TensorId q, TensorId k, TensorId weights, TensorId mask) {
  TensorGraph& g = b.graph;
  TensorId t = g.mul_mat(g.permute(k, 0, 2, 1, 3), g.permute(q, 0, 2, 1, 3));
  t = g.unary(g.cont(g.permute(t, 2, 1, 0, 3)));
  t = g.sum_rows(g.mul(t, weights));
  t = g.cont(g.permute(t, 2, 1, 0, 3));
  return g.add(t, mask);
}

/// The cells that each token attends to: [top_k, tokens, 1, streams].
TensorId chosen_cells(Builder& b,
                      const Indexer& indexer,
                      const IndexerInputs& in,
                      TensorId x,
                      TensorId query,
                      TensorId pos) {
  TensorGraph& g = b.graph;
  TensorId q = g.project(query, indexer.head_dim * indexer.n_heads);
  q = b.rope(g.reshape(q, {indexer.head_dim, indexer.n_heads, b.n_tokens, 1}), pos);
  TensorId k = b.norm(g.project(x, indexer.head_dim), NormKind::layer);
  k = b.rope(g.reshape(k, {indexer.head_dim, 1, b.n_tokens, 1}), pos);
  q = g.mul_mat(in.rotation, q);
  k = g.mul_mat(in.rotation, k);
  const CacheShape shape{indexer.head_dim, 0, 1};
  b.store_k(in.cache, shape, k);
  k = b.cached_k(in.cache, shape);
  q = b.by_stream(q);
  TensorId weights = g.project(x, indexer.n_heads);
  const TensorNode w = g[weights];
  weights = g.scale(
      g.view(weights,
             {w.ne[0], divide(w.ne[1], b.n_streams), 1, b.n_streams},
             {w.nb[0], w.nb[1], divide(w.nb[2], b.n_streams), divide(w.nb[3], b.n_streams)}));
  TensorId scores = kNoTensor;
  if (in.fused) {
    const Extents ne{g[k].ne[2], g[q].ne[2], 1, g[q].ne[3]};
    scores = g.operation(Op::lightning_indexer, DType::f32, ne, {q, k, weights, in.cache.mask});
  } else {
    scores = indexer_scores(b, q, k, weights, in.cache.mask);
  }
  const Affine n = b.fewer_cells_than(indexer.top_k) ? g[scores].ne[0] : Affine(indexer.top_k);
  const Extents ne{n, g[scores].ne[1], g[scores].ne[2], g[scores].ne[3]};
  return g.cont(g.operation(Op::top_k, DType::i32, ne, {scores}));
}

/// Every layer, or some of them, has an indexer; the others use the cells of the last that has.
void build_sparse_latent(Builder& b) {
  TensorGraph& g = b.graph;
  if (b.settings.latent != CacheScheme::mla_latent) {
    throw Unsupported("llama.cpp",
                      "\"" + b.model.architecture + "\" with a cache laid out as " +
                          std::string(name(b.settings.latent)),
                      "its graph is known with mla-latent alone");
  }
  if (!latent(b, 0).indexer) {
    throw Unsupported("model architecture",
                      "\"" + b.model.architecture + "\" without an indexer",
                      "a file with one");
  }
  TensorId x = b.token_embedding();
  const TensorId pos = b.positions();
  const CacheInputs cache = b.k_only_inputs();
  const IndexerInputs indexer = indexer_inputs(b, *latent(b, 0).indexer);
  const TensorId rows = b.output_rows();
  const std::size_t n_layers = b.model.layers.size();
  TensorId chosen = kNoTensor;
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const LayerSpec& layer = b.model.layers[i];
    const LatentAttention m = latent(b, i);
    TensorId residual = x;
    const TensorId normed = b.norm(x);
    const TensorId query = query_input(b, m, normed);
    if (m.indexer) {
      chosen = chosen_cells(b, *m.indexer, indexer, normed, query, pos);
    }
    const LatentParts parts = latent_parts(b, m, normed, query, pos);
    TensorId t = absorbed_attention(b, m, parts, pos, kNoTensor, cache, chosen);
    t = g.project(t, b.model.hidden_size);
    if (i + 1 == n_layers) {
      t = b.take_outputs(t, rows);
      residual = b.take_outputs(residual, rows);
    }
    const TensorId middle = g.add(t, residual);
    x = g.add(deepseek_feed_forward(b, b.norm(middle), layer), middle);
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head(x);
}

}  // namespace

std::span<const ArchitectureRow> deepseek_family() {
  static constexpr auto kRows = std::to_array<ArchitectureRow>({{"deepseek2", build_deepseek2},
                                                                {"deepseek32", build_sparse_latent},
                                                                {"glm-dsa", build_sparse_latent}});
  return kRows;
}

}  // namespace kvfathom::llama_cpp
