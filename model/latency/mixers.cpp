// What a layer's mixer does besides its projections, by the kind of mixer: prompts, states, cache
// writes. Reading the cache in decode, which depends on the scheme, is in decode_cache.cpp.
#include <algorithm>
#include <variant>

#include "model/latency/decode_cache.h"
#include "model/latency/emit.h"
#include "model/ops/cache_write.h"
#include "model/ops/eviction_scores.h"
#include "model/ops/prefill_attention.h"
#include "model/ops/ridge_refine.h"
#include "model/ops/state_update.h"
#include "model/rounding.h"

namespace kvfathom::latency {
namespace {

constexpr std::int64_t kStateChunk = 64;  // tokens whose states a prompt pass keeps on chip

/// What is rotated: K as a whole, or of a latent's row, whose rotary part is turned before it is
/// joined to it, nothing.
void emit_cache_write(
    const Emit& emit, std::int64_t n_kv_heads, std::int64_t head_dim, bool has_v, bool rotates) {
  const DType type = emit.settings.cache_type_k;
  const std::int64_t row = padded_row_bytes(type, head_dim);
  emit.add({.op_class = {.kind = OpKind::cache_write, .format = type},
            .part = "write cache",
            .cost = cache_write_cost({.n_tokens = emit.tokens(),
                                      .n_kv_heads = n_kv_heads,
                                      .head_dim = head_dim,
                                      .rotary_dim = rotates ? head_dim : 0,
                                      .stored_row_bytes = row,
                                      .has_v = has_v}),
            .n_blocks = emit.tokens() * n_kv_heads});
}

/// What a scheme that evicts does to a prompt once it is processed.
void emit_prompt_eviction(const Emit& emit, const Attention& a, const LayerWork& layer) {
  if (!emit.step.ends_prompt) {
    return;
  }
  for (const cache::Scheme& scheme : layer.schemes) {
    const auto* snap = std::get_if<cache::EvictSnapKv>(&scheme);
    const auto* grkv = std::get_if<cache::EvictGrkv>(&scheme);
    if (snap == nullptr && grkv == nullptr) {
      continue;
    }
    const cache::EvictionParameters& p = snap != nullptr ? snap->parameters : grkv->parameters;
    const std::int64_t tokens = emit.context();
    const std::int64_t kept = std::min(tokens, p.budget);
    if (kept == tokens) {
      continue;
    }
    constexpr std::int64_t kPooledNeighbours = 7;  // SnapKV's kernel_size
    const EvictionShape shape{.n_sequences = emit.step.n_sequences,
                              .n_heads = emit.share(a.n_heads),
                              .n_kv_heads = emit.share(a.n_kv_heads),
                              .head_dim = a.head_dim,
                              .n_tokens = tokens,
                              .n_queries = std::max<std::int64_t>(1, std::min(p.window, tokens)),
                              .stored_row_bytes = 2 * a.head_dim};
    const OpCost cost =
        eviction_scores_cost(shape) + pool_scores_cost(shape, p.window, kPooledNeighbours) +
        select_tokens_cost(shape, kept, std::min(p.window, kept)) + gather_cache_cost(shape, kept);
    emit.add({.op_class = {.kind = OpKind::eviction_scores, .head_dim = a.head_dim},
              .part = "score and select",
              .cost = cost});
    if (grkv != nullptr) {
      const std::int64_t rows =
          shape.n_heads / shape.n_kv_heads * std::max<std::int64_t>(1, p.window);
      emit.add({.op_class = {.kind = OpKind::ridge_refine, .head_dim = a.head_dim},
                .part = "refine",
                .cost = ridge_refine_cost({.n_problems = shape.n_sequences * shape.n_kv_heads,
                                           .n_tokens = tokens,
                                           .n_kept = kept,
                                           .n_rows = rows,
                                           .head_dim = a.head_dim})});
    }
  }
}

void emit_attention(const Emit& emit, const Attention& a, const LayerWork& layer, bool writes) {
  if (writes) {
    emit_cache_write(emit, emit.share(a.n_kv_heads), a.head_dim, !holds<cache::KOnly>(layer), true);
  }
  if (emit.step.phase == Phase::prefill) {
    emit_prefill_attention(emit, a);
    emit_prompt_eviction(emit, a, layer);
  } else {
    emit_decode_attention(emit, a, layer);
  }
}

/// A prompt of a latent layer: with K and V of every head written out, or absorbed. Where an
/// indexer chooses, each query sees no more than so many tokens, as in a window, but of all rows.
void emit_latent_prompt(const Emit& emit, const LatentAttention& a, const LayerWork& layer) {
  Attention as{.n_heads = a.n_heads,
               .n_kv_heads = a.n_heads,
               .head_dim = a.qk_nope_head_dim + a.qk_rope_head_dim,
               .v_head_dim = a.v_head_dim};
  if (emit.settings.absorbed_prefill) {
    as.n_kv_heads = 1;
    as.head_dim = a.kv_lora_rank + a.qk_rope_head_dim;
    as.v_head_dim = a.kv_lora_rank;
  }
  const std::size_t attention = emit.ops.size();
  emit_prefill_attention(emit, as);
  Op& op = emit.ops[attention];
  op.op_class.latent = !emit.settings.absorbed_prefill;
  op.cache = Bytes(static_cast<double>(
      emit.step.n_sequences * emit.context() *
      padded_row_bytes(emit.settings.cache_type_k, a.kv_lora_rank + a.qk_rope_head_dim)));
  if (layer.selected_tokens > 0) {
    const std::int64_t n_queries = emit.step.n_new_tokens;
    const PrefillAttentionShape all{.n_query_tokens = n_queries, .n_cached_tokens = emit.context()};
    PrefillAttentionShape chosen = all;
    chosen.window_tokens = static_cast<int>(layer.selected_tokens);
    const double pairs = prefill_attention_pairs(all);
    op.cost.flops = (prefill_attention_pairs(chosen) / pairs) * op.cost.flops;
    if (a.indexer) {
      emit_index_scores(emit, *a.indexer, pairs);
    }
  }
}

double state_element_bytes(const Emit& emit) {
  return static_cast<double>(row_bytes(emit.settings.state_type, 1));
}

/// A state's cost for the step's tokens: FLOPs for each, the state's bytes once a chunk.
void emit_state(const Emit& emit, const OpCost& per_token, std::int64_t n_heads) {
  const auto tokens = static_cast<double>(emit.step.n_new_tokens);
  const std::int64_t n_chunks = divide_up(emit.step.n_new_tokens, kStateChunk);
  const auto passes = static_cast<double>(n_chunks);
  const OpCost cost{passes * per_token.read,
                    passes * per_token.written,
                    tokens * per_token.flops,
                    per_token.launches};
  emit.add({.op_class = {.kind = OpKind::state_update, .format = emit.settings.state_type},
            .part = "state",
            .cost = cost,
            .n_blocks = emit.step.n_sequences * n_heads,
            .cache = per_token.read});
}

OpCost delta_net(const Emit& emit,
                 std::int64_t key_heads,
                 std::int64_t value_heads,
                 std::int64_t key_dim,
                 std::int64_t value_dim,
                 bool decay_per_channel) {
  return delta_net_cost({.n_sequences = emit.step.n_sequences,
                         .n_key_heads = emit.share(key_heads),
                         .n_value_heads = emit.share(value_heads),
                         .key_dim = key_dim,
                         .value_dim = value_dim,
                         .decay_per_channel = decay_per_channel,
                         .state_element_bytes = state_element_bytes(emit)});
}

OpCost convolution(const Emit& emit, std::int64_t n_channels, std::int64_t width) {
  return conv_state_cost(
      {.n_sequences = emit.step.n_sequences, .n_channels = emit.share(n_channels), .width = width});
}

void emit_one(const Emit& emit, const LayerWork& layer, const Attention& a) {
  emit_attention(emit, a, layer, true);
}
void emit_one(const Emit& emit, const LayerWork& layer, const SharedAttention& shared) {
  emit_attention(emit, shared.attention, layer, false);
}
void emit_one(const Emit& emit, const LayerWork& layer, const LatentAttention& a) {
  if (holds<cache::MlaExpanded>(layer)) {
    emit_cache_write(
        emit, emit.share(a.n_heads), a.qk_nope_head_dim + a.qk_rope_head_dim, true, false);
  } else {
    const std::int64_t row = a.kv_lora_rank + a.qk_rope_head_dim;
    emit_cache_write(emit, 1, row, holds<cache::MlaWithV>(layer), false);
  }
  if (emit.step.phase == Phase::prefill) {
    emit_latent_prompt(emit, a, layer);
  } else {
    emit_decode_latent(emit, a, layer);
  }
}
void emit_one(const Emit& emit, const LayerWork& /*layer*/, const Mamba2& m) {
  emit_state(emit,
             mamba2_cost({.n_sequences = emit.step.n_sequences,
                          .n_heads = emit.share(m.n_heads),
                          .n_groups = m.n_groups,
                          .head_dim = m.d_inner / m.n_heads,
                          .state_dim = m.d_state,
                          .state_element_bytes = state_element_bytes(emit)}) +
                 convolution(emit, m.d_inner + 2 * m.n_groups * m.d_state, m.d_conv),
             m.n_heads);
}
/// Mamba-1: a decay of its own for every channel, so a head of one channel each.
void emit_one(const Emit& emit, const LayerWork& /*layer*/, const Mamba& m) {
  emit_state(emit,
             mamba2_cost({.n_sequences = emit.step.n_sequences,
                          .n_heads = emit.share(m.d_inner),
                          .head_dim = 1,
                          .state_dim = m.d_state,
                          .state_element_bytes = state_element_bytes(emit)}) +
                 convolution(emit, m.d_inner, m.d_conv),
             m.d_inner);
}
void emit_one(const Emit& emit, const LayerWork& /*layer*/, const GatedDeltaNet& g) {
  const std::int64_t channels = g.n_v_heads * g.v_head_dim + 2 * g.n_k_heads * g.k_head_dim;
  emit_state(emit,
             delta_net(emit, g.n_k_heads, g.n_v_heads, g.k_head_dim, g.v_head_dim, false) +
                 convolution(emit, channels, g.d_conv),
             g.n_v_heads);
}
void emit_one(const Emit& emit, const LayerWork& /*layer*/, const KimiDeltaAttention& k) {
  emit_state(emit,
             delta_net(emit, k.n_heads, k.n_heads, k.head_dim, k.head_dim, true) +
                 convolution(emit, 3 * k.n_heads * k.head_dim, k.d_conv),
             k.n_heads);
}
void emit_one(const Emit& emit, const LayerWork& /*layer*/, const LightningAttention& a) {
  emit_state(emit, delta_net(emit, a.n_heads, a.n_heads, a.head_dim, a.head_dim, false), a.n_heads);
}
void emit_one(const Emit& emit, const LayerWork& /*layer*/, const Rwkv& r) {
  emit_state(emit, delta_net(emit, r.n_heads, r.n_heads, r.head_dim, r.head_dim, true), r.n_heads);
}
void emit_one(const Emit& emit, const LayerWork& /*layer*/, const ShortConv& c) {
  emit_state(emit, convolution(emit, c.channels, c.d_conv), 1);
}
void emit_one(const Emit& emit, const LayerWork& layer, const ParallelMixers& both) {
  emit_one(emit, layer, both.mamba2);
  emit_one(emit, layer, both.attention);
}
void emit_one(const Emit& /*emit*/, const LayerWork& /*layer*/, const NoMixer& /*none*/) {}

}  // namespace

void emit_prefill_attention(const Emit& emit, const Attention& kv) {
  const PrefillAttentionShape shape{
      .n_query_tokens = emit.step.n_new_tokens,
      .n_cached_tokens = emit.context(),
      .n_heads = static_cast<int>(emit.share(kv.n_heads)),
      .n_kv_heads = static_cast<int>(emit.share(kv.n_kv_heads)),
      .head_dim = static_cast<int>((kv.head_dim + kv.v_head_dim) / 2),
      .window_tokens = static_cast<int>(kv.window_tokens.value_or(0))};
  const auto sequences = static_cast<int>(emit.step.n_sequences);
  OpCost cost = sequences * prefill_attention_cost(shape);
  cost.launches = 1;
  const std::int64_t rows =
      emit.step.n_sequences * emit.share(kv.n_kv_heads) *
      std::min(emit.context(), kv.window_tokens.value_or(emit.context()) + emit.step.n_new_tokens);
  constexpr std::int64_t kQueryTile = 128;
  const std::int64_t tiles = divide_up(emit.step.n_new_tokens, kQueryTile);
  emit.add({.op_class = {.kind = OpKind::prefill_attention,
                         .head_dim = kv.head_dim,
                         .heads_per_kv = kv.n_heads / kv.n_kv_heads,
                         .window = kv.window_tokens.has_value()},
            .part = "attention",
            .cost = cost,
            .n_blocks = sequences * static_cast<std::int64_t>(shape.n_heads) * tiles,
            .block_share = static_cast<double>(emit.step.n_new_tokens) /
                           static_cast<double>(tiles * kQueryTile),
            .cache = Bytes(static_cast<double>(
                rows * (padded_row_bytes(emit.settings.cache_type_k, kv.head_dim) +
                        padded_row_bytes(emit.settings.cache_type_v, kv.v_head_dim))))});
}

void emit_mixer(const Emit& emit, const LayerWork& layer) {
  std::visit([&](const auto& mixer) { emit_one(emit, layer, mixer); }, layer.layer.mixer);
}

}  // namespace kvfathom::latency
