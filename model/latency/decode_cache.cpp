#include "model/latency/decode_cache.h"

#include <algorithm>
#include <variant>

#include "model/ops/decode_attention.h"
#include "model/ops/eviction_scores.h"
#include "model/ops/head_reconstruction.h"
#include "model/ops/host_transfer.h"
#include "model/ops/index_scores.h"
#include "model/ops/mla_decode.h"
#include "model/ops/residual_recompute.h"
#include "model/ops/value_reconstruction.h"
#include "model/rounding.h"

namespace kvfathom::latency {
namespace {

/// One layer's heads on this rank.
struct Heads {
  std::int64_t n_heads;  ///< of all new tokens: they share a KV head's rows
  std::int64_t n_kv_heads;
  std::int64_t head_dim;  ///< mean of a K and a V head's width
};

Heads heads_of(const Emit& emit, const Attention& a) {
  return {emit.query_heads(a.n_heads), emit.share(a.n_kv_heads), (a.head_dim + a.v_head_dim) / 2};
}

/// K or V of one token and head as the scheme stores it, the mean of both.
std::int64_t stored_row_bytes(const Emit& emit,
                              const Attention& a,
                              const cache::CacheLayout& rows) {
  constexpr std::int64_t kBits = 8;
  const std::int64_t packed = (rows.k_packed_bits + rows.v_packed_bits) / kBits;
  const std::int64_t typed = padded_row_bytes(emit.settings.cache_type_k, rows.k_row_elements) +
                             padded_row_bytes(emit.settings.cache_type_v, rows.v_row_elements);
  return (packed + typed) / (2 * a.n_kv_heads);
}

/// Tokens that a decode step reads where it reads `token_cap` (0: all) at most.
std::int64_t read_tokens(const Emit& emit, std::int64_t token_cap) {
  return token_cap > 0 ? std::min(emit.context(), token_cap) : emit.context();
}

/// By how many bytes of a sequence and KV head the tokens that stay in 16 bits exceed stored rows.
std::int64_t exact_excess(const Emit& emit,
                          const Attention& a,
                          const cache::CacheLayout& rows,
                          std::int64_t row) {
  const std::int64_t tokens = read_tokens(emit, rows.token_cap.value_or(0));
  const std::int64_t v_tokens = std::min(tokens, rows.exact_tokens);
  const std::int64_t k_tokens = rows.k_flush_tokens > 0 ? tokens % rows.k_flush_tokens : v_tokens;
  const auto excess = [&](std::int64_t n, std::int64_t elements) {
    return elements > 0 ? n * (2 * elements / a.n_kv_heads - row) : 0;
  };
  return excess(k_tokens, rows.exact_k_elements) + excess(v_tokens, rows.exact_v_elements);
}

/// The type whose kernel reads rows of so many bits: 16-bit rows and 8-bit floats have their own,
/// integers in blocks and what schemes pack go by their bits.
DType kernel_format(const Emit& emit, const Attention& a, std::int64_t row) {
  const DType k = emit.settings.cache_type_k;
  const DType v = emit.settings.cache_type_v;
  const std::int64_t bits = 16 * row / (a.head_dim + a.v_head_dim);
  const std::int64_t typed = padded_row_bytes(k, a.head_dim) + padded_row_bytes(v, a.v_head_dim);
  const bool floats = k == v && (k == DType::f8_e4m3 || k == DType::f8_e5m2);
  if (bits >= 16 || (floats && 2 * row == typed)) {
    return k;
  }
  return bits >= 8 ? DType::q8_0 : DType::q4_0;
}

/// Query heads of one token that share a reading of K and V; the tokens of a draft share it too.
constexpr std::int64_t kHeadsPerPass = 16;

/// Plain decode attention over at most `token_cap` (0: all) tokens of rows of `row` bytes on
/// average, and `beside` bytes more of each sequence and KV head.
void emit_reading(const Emit& emit,
                  const Attention& a,
                  std::int64_t row,
                  std::int64_t token_cap,
                  std::int64_t beside = 0) {
  const Heads heads = heads_of(emit, a);
  const DecodeAttentionShape shape{.n_heads = heads.n_heads,
                                   .n_kv_heads = heads.n_kv_heads,
                                   .head_dim = heads.head_dim,
                                   .lengths = emit.lengths(),
                                   .n_sequences = emit.step.n_sequences,
                                   .window_tokens = token_cap,
                                   .sink_logits = a.sinks,
                                   .row_bytes = row,
                                   .heads_per_pass = kHeadsPerPass * emit.step.n_new_tokens};
  OpCost cost = decode_attention_cost(shape);
  const std::int64_t tokens = read_tokens(emit, token_cap);
  const std::int64_t queries = heads.n_heads / heads.n_kv_heads;
  const std::int64_t passes = divide_up(queries, shape.heads_per_pass);
  cost.read +=
      Bytes(static_cast<double>(beside * passes * heads.n_kv_heads * emit.step.n_sequences));
  emit.add({.op_class = {.kind = OpKind::decode_attention,
                         .format = kernel_format(emit, a, row + beside / (2 * tokens)),
                         .head_dim = a.head_dim,
                         .heads_per_kv = a.n_heads / a.n_kv_heads,
                         .window = token_cap > 0},
            .part = "attention",
            .cost = cost,
            .n_blocks = emit.step.n_sequences * heads.n_kv_heads,
            .cache = cost.read});
}

/// The share of `bytes` that another tier holds is brought over first, once a step.
void emit_fetch(const Emit& emit, Bytes bytes) {
  const auto& offload = emit.settings.offload;
  if (!offload || offload->kept >= cache::kWhole || bytes.value() <= 0.0) {
    return;
  }
  const double away = 1.0 - static_cast<double>(offload->kept) / static_cast<double>(cache::kWhole);
  const std::int64_t chunks =
      (emit.context() + offload->chunk - 1) / offload->chunk * emit.step.n_sequences;
  const OpKind kind = offload->tier == cache::Offload::kHost   ? OpKind::host_transfer
                      : offload->tier == cache::Offload::kNvme ? OpKind::file_read
                                                               : OpKind::network_transfer;
  const OpCost cost =
      host_transfer_cost({.bytes_per_piece = away * bytes / static_cast<double>(chunks),
                          .n_pieces = static_cast<int>(chunks)});
  emit.add({.op_class = {.kind = kind, .format = emit.settings.cache_type_k},
            .part = "fetch cache",
            .cost = cost});
}

/// K and V of the tokens beyond the exact window are computed from stored X (residual, XQuant).
void emit_recompute(const Emit& emit,
                    const Attention& a,
                    std::int64_t n_columns,
                    double stored_row,
                    bool latents,
                    std::int64_t exact_tokens) {
  const std::int64_t tokens = std::max<std::int64_t>(0, emit.context() - exact_tokens);
  if (tokens == 0) {
    return;
  }
  const OpCost cost = residual_recompute_cost({.n_tokens = emit.step.n_sequences * tokens,
                                               .n_columns = n_columns,
                                               .stored_row_bytes = stored_row,
                                               .separate_v = latents,
                                               .n_kv_heads = emit.share(a.n_kv_heads),
                                               .head_dim = a.head_dim,
                                               .rotary_dim = a.rope_dim,
                                               .norm = !latents,
                                               .k_norm = a.qk_norm != QkNorm::none,
                                               .cache_row_bytes = 2 * a.head_dim});
  emit.add({.op_class = {.kind = OpKind::residual_recompute, .head_dim = a.head_dim},
            .part = "rebuild k v",
            .cost = cost,
            .n_blocks = tokens,
            .cache = Bytes(stored_row * static_cast<double>(emit.step.n_sequences * tokens))});
}

std::int64_t window_of(const cache::KvRows& kv) {
  return kv.window_tokens;
}

/// Every scheme's decode step. Schemes that only store differently share the last overload.
struct DecodeScheme {
  const Emit& emit;
  const Attention& a;
  const LayerWork& layer;

  [[nodiscard]] std::int64_t sixteen_bit_row() const { return a.head_dim + a.v_head_dim; }

  void operator()(const cache::KOnly& s) const {
    const ValueReconstructionShape shape{.n_sequences = emit.step.n_sequences,
                                         .n_tokens = emit.context(),
                                         .n_heads = emit.query_heads(a.n_heads),
                                         .n_kv_heads = emit.share(a.n_kv_heads),
                                         .head_dim = a.head_dim,
                                         .keys_rotated = a.rope_dim > 0};
    const bool absorbed = s.parameters.rebuild == cache::KOnlyParameters::kAbsorbed;
    const OpCost cost = absorbed ? value_decode_cost(shape) : value_rows_cost(shape);
    const std::int64_t width = shape.n_kv_heads * a.head_dim;
    const std::int64_t passes = absorbed ? value_decode_passes(shape) : 1;
    emit.add({.op_class = {.kind = OpKind::value_reconstruction, .head_dim = a.head_dim},
              .part = absorbed ? "attention" : "rebuild v",
              .cost = cost,
              .n_blocks = shape.n_sequences * shape.n_kv_heads,
              .weights = Bytes(2.0 * static_cast<double>(width * width)),  // makes V of K
              .cache = Bytes(
                  2.0 * static_cast<double>(passes * shape.n_sequences * shape.n_tokens * width))});
    if (!absorbed) {
      emit_reading(emit, a, sixteen_bit_row(), window_of(s.kv));
    }
  }

  void operator()(const cache::HeadLinear& s) const {
    const HeadReconstructionShape shape = head_shape(s);
    const bool absorbed = s.parameters.rebuild == cache::HeadLinearParameters::kAbsorbed;
    const OpCost cost = absorbed ? head_decode_cost(shape)
                                 : head_rows_cost(shape, shape.k) + head_rows_cost(shape, shape.v);
    emit.add({.op_class = {.kind = OpKind::head_reconstruction, .head_dim = a.head_dim},
              .part = absorbed ? "attention" : "rebuild heads",
              .cost = cost,
              .n_blocks = shape.n_sequences * shape.n_kv_heads,
              .cache = cost.read});
    if (!absorbed) {
      emit_reading(emit, a, sixteen_bit_row(), window_of(s.kv));
    }
  }

  void operator()(const cache::Residual& s) const {
    const auto stored = 2.0 * static_cast<double>(s.hidden_size);
    if (s.is_checkpoint && s.parameters.checkpoints != cache::ResidualParameters::kTokens) {
      emit_recompute(emit, a, s.hidden_size, stored, false, s.parameters.window);
    } else {
      emit_layer_again(
          emit, layer, std::max<std::int64_t>(1, emit.context() - s.parameters.window));
    }
    emit_reading(emit, a, sixteen_bit_row(), window_of(s.kv));
  }

  void operator()(const cache::XQuant& s) const {
    const cache::CacheLayout rows = layout(s);
    constexpr double kBits = 8.0;
    const double stored = static_cast<double>(rows.k_packed_bits + rows.v_packed_bits) / kBits;
    const std::int64_t columns =
        s.grouped_queries ? a.n_kv_heads * (a.head_dim + a.v_head_dim) / 2 : s.hidden_size;
    emit_recompute(emit, a, columns, stored, s.grouped_queries, s.parameters.exact);
    emit_reading(emit, a, sixteen_bit_row(), window_of(s.kv));
  }

  void operator()(const cache::EvictH2o& s) const { scored(s, s.parameters, false); }
  void operator()(const cache::EvictTova& s) const { scored(s, s.parameters, true); }

  template <class S>
  void operator()(const S& s) const {
    const cache::CacheLayout rows = layout(s);
    const std::int64_t row = stored_row_bytes(emit, a, rows);
    emit_fetch(emit,
               Bytes(static_cast<double>(attended(rows) * row * 2 * emit.share(a.n_kv_heads))));
    emit_reading(emit, a, row, token_cap(rows), exact_excess(emit, a, rows, row));
  }

 private:
  /// Tokens that are read at most: a window, a budget, or what an indexer chooses; 0: all.
  [[nodiscard]] std::int64_t token_cap(const cache::CacheLayout& rows) const {
    const std::int64_t cap = rows.token_cap.value_or(0);
    const std::int64_t top_k = a.indexer ? a.indexer->top_k : 0;
    return cap == 0 || (top_k > 0 && top_k < cap) ? top_k : cap;
  }
  [[nodiscard]] std::int64_t attended(const cache::CacheLayout& rows) const {
    const std::int64_t cap = token_cap(rows);
    return emit.step.n_sequences * (cap > 0 ? std::min(emit.context(), cap) : emit.context());
  }

  /// Schemes that look at every step's attention for what to drop next.
  template <class S>
  void scored(const S& s, const cache::EvictionParameters& p, bool per_layer) const {
    const std::int64_t tokens = std::min(emit.context(), p.budget + p.generated);
    const EvictionShape shape{.n_sequences = emit.step.n_sequences,
                              .n_heads = emit.query_heads(a.n_heads),
                              .n_kv_heads = emit.share(a.n_kv_heads),
                              .head_dim = a.head_dim,
                              .n_tokens = tokens,
                              .per_layer = per_layer,
                              .accumulate = !per_layer,
                              .stored_row_bytes = stored_row_bytes(emit, a, layout(s))};
    emit.add({.op_class = {.kind = OpKind::eviction_scores, .head_dim = a.head_dim},
              .part = "score and select",
              .cost = eviction_scores_cost(shape) +
                      select_tokens_cost(shape, tokens, std::min(p.window, tokens))});
    emit_reading(emit, a, shape.stored_row_bytes, layout(s).token_cap.value_or(0));
  }

  /// The predicted share of the heads, each from `references` stored ones.
  [[nodiscard]] HeadReconstructionShape head_shape(const cache::HeadLinear& s) const {
    const cache::HeadLinearParameters& p = s.parameters;
    const std::int64_t n_kv = emit.share(a.n_kv_heads);
    const std::int64_t rows = emit.query_heads(a.n_heads) / n_kv;
    const std::int64_t n_predicted = n_kv * p.predicted / cache::kWhole;
    const std::int64_t n_stored = std::max<std::int64_t>(1, n_kv - n_predicted);
    const auto groups = [&](bool is_predicted_side) {
      std::vector<HeadGroupShape> all;
      for (std::int64_t head = 0; head < n_kv; ++head) {
        const bool predicted = is_predicted_side && head < n_predicted;
        all.push_back({.n_rows = rows,
                       .n_slices = predicted ? std::min(p.references, n_stored) : 1,
                       .predicted = predicted});
      }
      return all;
    };
    return {.n_sequences = emit.step.n_sequences,
            .n_tokens = emit.context(),
            .n_heads = rows * n_kv,
            .n_kv_heads = n_kv,
            .head_dim = a.head_dim,
            .n_exact = std::min(p.exact, emit.context()),
            .k = groups(p.tensors != cache::HeadLinearParameters::kV),
            .v = groups(p.tensors != cache::HeadLinearParameters::kK)};
  }
};

}  // namespace

void emit_index_scores(const Emit& emit, const Indexer& indexer, double pairs) {
  OpCost cost = index_scores_cost({.n_sequences = emit.step.n_sequences,
                                   .n_tokens = emit.context(),
                                   .n_heads = indexer.n_heads,
                                   .head_dim = indexer.head_dim});
  const auto sequences = static_cast<double>(emit.step.n_sequences);
  cost.flops =
      Flops(2.0 * sequences * pairs * static_cast<double>(indexer.n_heads * indexer.head_dim));
  emit.add({.op_class = {.kind = OpKind::index_scores,
                         .format = DType::f8_e4m3,
                         .head_dim = indexer.head_dim},
            .part = "indexer scores",
            .cost = cost,
            .n_blocks = emit.step.n_sequences,
            .cache = cost.read});
}

void emit_decode_attention(const Emit& emit, const Attention& a, const LayerWork& layer) {
  if (a.indexer) {
    const auto queries = static_cast<double>(emit.step.n_new_tokens);
    emit_index_scores(emit, *a.indexer, queries * static_cast<double>(emit.context()));
  }
  for (const cache::Scheme& scheme : layer.schemes) {
    if (std::holds_alternative<cache::State>(scheme) ||
        std::holds_alternative<cache::SparseIndex>(scheme)) {
      continue;  // of a mixer beside this one; the indexer's keys, scored below
    }
    if (std::holds_alternative<cache::CrossLayer>(scheme)) {
      const std::int64_t row = stored_row_bytes(emit,
                                                a,
                                                {.k_row_elements = a.n_kv_heads * a.head_dim,
                                                 .v_row_elements = a.n_kv_heads * a.v_head_dim});
      emit_reading(emit, a, row, a.window_tokens.value_or(0));
      continue;
    }
    std::visit(DecodeScheme{emit, a, layer}, scheme);
  }
}

void emit_decode_latent(const Emit& emit, const LatentAttention& a, const LayerWork& layer) {
  for (const cache::Scheme& scheme : layer.schemes) {
    if (std::holds_alternative<cache::SparseIndex>(scheme)) {
      continue;  // counted with the latents that it selects
    }
    if (std::holds_alternative<cache::MlaExpanded>(scheme)) {
      const Attention expanded{.n_heads = a.n_heads,
                               .n_kv_heads = a.n_heads,
                               .head_dim = a.qk_nope_head_dim + a.qk_rope_head_dim,
                               .v_head_dim = a.v_head_dim};
      std::visit(DecodeScheme{emit, expanded, layer}, scheme);
      continue;
    }
    if (a.indexer) {
      const auto queries = static_cast<double>(emit.step.n_new_tokens);
      emit_index_scores(emit, *a.indexer, queries * static_cast<double>(emit.context()));
    }
    const std::int64_t attended = read_tokens(emit, layer.selected_tokens);
    const std::int64_t tokens = emit.step.n_sequences * attended;
    const MlaDecodeShape shape{.n_sequences = emit.step.n_sequences,
                               .n_cached_tokens = tokens,
                               .n_heads = static_cast<int>(emit.query_heads(a.n_heads)),
                               .kv_lora_rank = static_cast<int>(a.kv_lora_rank),
                               .qk_rope_head_dim = static_cast<int>(a.qk_rope_head_dim),
                               .separate_v = std::holds_alternative<cache::MlaWithV>(scheme)};
    OpCost cost = mla_decode_cost(shape);
    const cache::CacheLayout rows = layout(scheme);
    const auto stored =
        static_cast<double>(padded_row_bytes(emit.settings.cache_type_k, rows.k_row_elements) +
                            padded_row_bytes(emit.settings.cache_type_v, rows.v_row_elements));
    const Bytes all(stored * static_cast<double>(tokens));
    cost.read += all - static_cast<double>(tokens) * mla_token_bytes(shape);
    emit_fetch(emit, all);
    emit.add({.op_class = {.kind = OpKind::mla_decode,
                           .format = emit.settings.cache_type_k,
                           .head_dim = a.kv_lora_rank + a.qk_rope_head_dim,
                           .heads_per_kv = a.n_heads},
              .part = "attention",
              .cost = cost,
              .n_blocks = emit.step.n_sequences,
              .cache = all});
  }
}

}  // namespace kvfathom::latency
