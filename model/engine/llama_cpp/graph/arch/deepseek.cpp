// DeepSeek V2/V3 and what shares their latent attention (src/models/deepseek2.cpp).
#include <array>

#include "model/engine/llama_cpp/graph/arch/arch.h"
#include "model/error.h"

namespace kvfathom::llama_cpp {

namespace {

const LatentAttention& latent(const Builder& b, std::size_t layer) {
  if (const auto* m = std::get_if<LatentAttention>(&b.model.layers.at(layer).mixer)) {
    return *m;
  }
  throw Unsupported("layer " + std::to_string(layer),
                    "a mixer that architecture \"" + b.model.architecture + "\" does not have",
                    "multi-head latent attention");
}

struct LatentParts {
  TensorId q = kNoTensor;       ///< [nope + rope, heads, tokens]
  TensorId latent = kNoTensor;  ///< normalised
  TensorId k_rope = kNoTensor;  ///< rotated, [rope, 1, tokens]
};

LatentParts latent_parts(Builder& b, const LatentAttention& m, TensorId x, TensorId pos) {
  TensorGraph& g = b.graph;
  const std::int64_t head = m.qk_nope_head_dim + m.qk_rope_head_dim;
  const TensorId query = m.q_lora_rank > 0 ? b.norm(g.project(x, m.q_lora_rank)) : x;
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
                            const CacheInputs& cache) {
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
  return b.attend_k_only(cache,
                         {m.kv_lora_rank + m.qk_rope_head_dim, m.kv_lora_rank, 1},
                         x,
                         {.decompressed_v_dim = m.v_head_dim});
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
  options.merged_gate_up = b.has_tensor("blk.1.ffn_gate_up_exps.weight");
  const TensorId routed = b.experts(x, moe, options);
  const DenseFeedForward shared{moe.shared_intermediate_size, true, false};
  return b.graph.add(routed, b.feed_forward(x, shared, Activation::silu));
}

void build_deepseek2(Builder& b) {
  TensorGraph& g = b.graph;
  const bool absorbed = b.settings.v_less_mla;
  TensorId x = b.token_embedding();
  const TensorId pos = b.positions();
  const CacheInputs cache = absorbed ? b.k_only_inputs() : b.cache_inputs(CacheKind::full);
  const TensorId rows = b.output_rows();
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    const LayerSpec& layer = b.model.layers[i];
    const LatentAttention& m = latent(b, i);
    TensorId residual = x;
    const LatentParts parts = latent_parts(b, m, b.norm(x), pos);
    TensorId t = absorbed ? absorbed_attention(b, m, parts, pos, kNoTensor, cache)
                          : expanded_attention(b, m, parts, pos, kNoTensor, cache);
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
  static constexpr std::array<ArchitectureRow, 1> rows{{{"deepseek2", build_deepseek2}}};
  return rows;
}

}  // namespace kvfathom::llama_cpp
