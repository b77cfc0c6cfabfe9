// Projections and feed-forwards of a step.
#include <algorithm>
#include <array>

#include "model/latency/emit.h"
#include "model/ops/elementwise.h"
#include "model/ops/gemm.h"
#include "model/ops/host_transfer.h"
#include "model/ops/moe_ffn.h"
#include "model/rounding.h"

namespace kvfathom::latency {
namespace {

constexpr std::int64_t kTile = 128;  // of rows and columns that one block computes

std::int64_t tiles(std::int64_t m, std::int64_t n) {
  return divide_up(m, kTile) * divide_up(n, kTile);
}

/// Products whose input is cut over the ranks, not their output.
bool is_row_parallel(std::string_view part) {
  constexpr std::array<std::string_view, 4> kParts{
      "attention output", "down", "state output", "channel mix"};
  return std::ranges::find(kParts, part) != kParts.end();
}

/// K and V heads are copied where there are fewer of them than ranks.
std::int64_t qkv_rows(const MatrixWork& matrix, const Mixer& mixer, std::int64_t ranks) {
  const auto* a = std::get_if<Attention>(&mixer);
  if (a == nullptr || a->n_kv_heads >= ranks || matrix.part != "q k v") {
    return divide_up(matrix.n_out, ranks);
  }
  const std::int64_t kv = a->n_kv_heads * (a->head_dim + (a->v_is_k ? 0 : a->v_head_dim));
  return (matrix.n_out - kv) / ranks + kv / a->n_kv_heads;
}

/// Only 8-bit floats come in both kinds.
bool has_block_scales(DType dtype, bool block_scales) {
  return block_scales && (dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2);
}

OpCost scaled(const OpCost& cost, double factor) {
  return {factor * cost.read, factor * cost.written, factor * cost.flops, cost.launches};
}

/// Replicas that share their experts bring their tokens to each other's.
std::int64_t replicas_of_experts(const LatencySettings& s) {
  return s.expert_parallel > s.tensor_parallel ? s.data_parallel : 1;
}

/// Tokens that pass the experts together: every replica has as many in a decode step; a prompt is
/// alone, and idle replicas take part in its steps with a token each (vLLM's dummy batches).
std::int64_t expert_tokens(const Emit& emit) {
  const std::int64_t replicas = replicas_of_experts(emit.settings);
  return emit.step.phase == Phase::decode ? replicas * emit.tokens() : emit.tokens() + replicas - 1;
}

void emit_experts(const Emit& emit, const LayerWork& layer) {
  const ExpertWork& experts = *layer.experts;
  const LatencySettings& s = emit.settings;
  const std::int64_t tokens = expert_tokens(emit);
  const double active = expected_active_experts(tokens, experts.n_experts, experts.n_chosen);
  const double rows_per_expert = static_cast<double>(tokens * experts.n_chosen) / active;
  const OpCost whole =
      moe_ffn_cost({.n_tokens = tokens,
                    .hidden_size = experts.hidden_size,
                    .intermediate_size = experts.intermediate_size,
                    .n_experts = experts.n_experts,
                    .n_chosen = experts.n_chosen,
                    .n_active_experts = active,
                    .weights = experts.dtype,
                    .gated = experts.gated,
                    .bytes_per_expert = experts.weights_bytes / experts.n_experts});
  const double share = 1.0 / static_cast<double>(std::max(s.tensor_parallel, s.expert_parallel));
  const Bytes weights(active * share * static_cast<double>(experts.weights_bytes) /
                      static_cast<double>(experts.n_experts));
  emit.add({.op_class = {.kind = OpKind::moe_ffn,
                         .format = experts.dtype,
                         .block_scales = has_block_scales(experts.dtype, experts.block_scales),
                         .few_rows = rows_per_expert <= kFewRows},
            .part = "experts",
            .cost = scaled(whole, share),
            .n_blocks = tiles(tokens * experts.n_chosen, 2 * experts.intermediate_size),
            .weights = weights},
           experts.on_host);
}

/// Norms with residual additions, and the activation: calls of their own, each with its fixed cost.
void emit_between(const Emit& emit, const LayerWork& layer) {
  const std::int64_t tokens = emit.tokens();
  const std::int64_t n_norms = std::ranges::count(std::array{layer.layer.pre_mixer_norm,
                                                             layer.layer.post_mixer_norm,
                                                             layer.layer.pre_feed_forward_norm,
                                                             layer.layer.post_feed_forward_norm},
                                                  true);
  if (n_norms > 0) {
    emit.add({.op_class = {.kind = OpKind::elementwise},
              .part = "norms",
              .cost = rms_norm_cost(
                  {.n_rows = tokens, .n_columns = emit.hidden_size, .adds_residual = true}),
              .n_blocks = tokens,
              .n_times = n_norms});
  }
  if (const auto* dense = std::get_if<DenseFeedForward>(&layer.layer.feed_forward)) {
    emit.add({.op_class = {.kind = OpKind::elementwise},
              .part = "activation",
              .cost = gated_activation_cost({.n_rows = tokens,
                                             .n_columns = emit.share(dense->intermediate_size),
                                             .gated = dense->gated}),
              .n_blocks = tokens});
  }
}

/// What the ranks tell each other: the sum of the mixer's output and that of the feed-forward.
/// Where replicas share experts, each rank sends its part of the tokens to the ranks of their
/// experts instead, and gets the answers back; within one replica every rank holds all tokens
/// already.
void emit_collectives(const Emit& emit, const LayerWork& layer) {
  const double row_bytes = 2.0 * static_cast<double>(emit.hidden_size);
  const Bytes message(static_cast<double>(emit.tokens()) * row_bytes);
  const LatencySettings& s = emit.settings;
  const bool sends_tokens = layer.experts && replicas_of_experts(s) > 1;
  if (s.tensor_parallel > 1) {
    Op op{.op_class = {.kind = OpKind::all_reduce, .heads_per_kv = s.tensor_parallel},
          .part = "sum over ranks",
          .cost = {.read = message}};
    op.n_times = layer.layer.parallel_residual || sends_tokens ? 1 : 2;
    emit.add(op);
  }
  if (sends_tokens) {
    const auto copies = static_cast<double>(std::min(layer.experts->n_chosen, s.expert_parallel));
    Op op{.op_class = {.kind = OpKind::all_to_all, .heads_per_kv = s.expert_parallel},
          .part = "tokens to experts and back",
          .cost = {.read = message * (copies / static_cast<double>(s.tensor_parallel))}};
    op.n_times = 2;
    emit.add(op);
  }
}

/// Values follow from keys (scheme k-only): their weights are not read.
void emit_queries_and_keys(const Emit& emit, MatrixWork matrix, Attention attention) {
  const std::int64_t all = matrix.n_out;
  matrix.n_out -= attention.n_kv_heads * attention.v_head_dim;
  matrix.weights_bytes = matrix.weights_bytes * matrix.n_out / all;
  attention.v_is_k = true;
  emit_matrix(emit, matrix, attention);
}

}  // namespace

void emit_matrix(const Emit& emit, const MatrixWork& matrix, const Mixer& mixer) {
  const std::int64_t ranks = matrix.replicated ? 1 : emit.settings.tensor_parallel;
  const std::int64_t stack = matrix.n_stack > 1 ? divide_up(matrix.n_stack, ranks) : 1;
  GemmShape shape{.m = emit.tokens(), .n = matrix.n_out, .k = matrix.n_in, .weights = matrix.dtype};
  const double share = 1.0 / static_cast<double>(ranks);
  double weights_bytes = static_cast<double>(matrix.weights_bytes) * share;
  if (matrix.n_stack == 1 && ranks > 1) {
    if (is_row_parallel(matrix.part)) {
      shape.k = divide_up(matrix.n_in, ranks);
    } else {
      shape.n = qkv_rows(matrix, mixer, ranks);
      weights_bytes = static_cast<double>(matrix.weights_bytes) * static_cast<double>(shape.n) /
                      static_cast<double>(matrix.n_out);
    }
  }
  // Weights are counted as stored, so that a share of a quantised row need not be whole blocks.
  GemmShape activations = shape;
  activations.n = 0;
  OpCost cost = static_cast<int>(stack) * gemm_cost(activations);
  cost.launches = 1;
  cost.read += Bytes(weights_bytes);
  cost.written = Bytes(2.0 * static_cast<double>(stack * shape.m * shape.n));
  cost.flops =
      Flops(2.0 * static_cast<double>(stack * shape.m * shape.n) * static_cast<double>(shape.k));
  emit.add({.op_class = {.kind = OpKind::gemm,
                         .format = matrix.dtype,
                         .block_scales = has_block_scales(matrix.dtype, matrix.block_scales),
                         .few_rows = shape.m <= kFewRows},
            .part = matrix.part,
            .cost = cost,
            .n_blocks = stack * tiles(shape.m, shape.n),
            .weights = Bytes(weights_bytes)},
           matrix.on_host);
}

void bring_from_host(const Emit& emit, std::size_t first) {
  const std::int64_t least = emit.settings.brought_from_tokens;
  if (least == 0 || emit.tokens() < least) {
    return;
  }
  const auto bring = [&](const Op& op, std::string_view part, Bytes bytes, int n_pieces) {
    if (bytes > Bytes{}) {
      emit.ops.push_back(
          {.op_class = {.kind = OpKind::host_transfer,
                        .format = op.op_class.format,
                        .pageable = true},
           .part = part,
           .cost = host_transfer_cost({.bytes_per_piece = bytes / n_pieces, .n_pieces = n_pieces}),
           .n_times = op.n_times});
    }
  };
  const std::size_t end = emit.ops.size();
  for (std::size_t i = first; i < end; ++i) {
    if (emit.ops[i].on_host) {
      const Op op = emit.ops[i];
      emit.ops[i].on_host = false;
      bring(op, kBringWeights, op.weights, op.op_class.kind == OpKind::moe_ffn ? 3 : 1);
      bring(op, kBringCache, op.cache, 2);
    }
  }
}

void emit_products(const Emit& emit, const LayerWork& layer) {
  const bool drops_v = emit.step.phase == Phase::decode && holds<cache::KOnly>(layer);
  for (const MatrixWork& matrix : layer.matrices) {
    if (const auto* a = std::get_if<Attention>(&layer.layer.mixer);
        drops_v && a != nullptr && matrix.part == "q k v") {
      emit_queries_and_keys(emit, matrix, *a);
    } else {
      emit_matrix(emit, matrix, layer.layer.mixer);
    }
  }
  if (layer.experts) {
    emit_experts(emit, layer);
  }
  emit_between(emit, layer);
  emit_collectives(emit, layer);
}

void emit_layer_again(const Emit& emit, const LayerWork& layer, std::int64_t n_tokens) {
  const StepShape again{
      .phase = Phase::prefill, .n_sequences = emit.step.n_sequences, .n_new_tokens = n_tokens};
  const std::size_t first = emit.ops.size();
  const Emit prompt{emit.settings, again, emit.hidden_size, emit.n_layers, emit.ops, emit.on_host};
  emit_products(prompt, layer);
  if (const auto* attention = std::get_if<Attention>(&layer.layer.mixer)) {
    emit_prefill_attention(prompt, *attention);
  }
  for (std::size_t i = first; i < emit.ops.size(); ++i) {
    emit.ops[i].part = "earlier layers again";
  }
}

}  // namespace kvfathom::latency
