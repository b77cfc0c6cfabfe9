#include "calibrate/program/decode_loop.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <numeric>

#include "kernels/cache_write/cache_write.h"
#include "kernels/common/number_formats.h"
#include "kernels/common/parallel.h"
#include "kernels/common/rope.h"
#include "kernels/common/weight_format.h"
#include "kernels/decode_attention/decode_attention.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/gemm.h"
#include "kernels/moe_ffn/moe_ffn.h"
#include "kernels/prefill_attention/prefill_attention.h"
#include "model/ops/cache_write.h"
#include "model/ops/decode_attention.h"
#include "model/ops/elementwise.h"
#include "model/ops/gemm.h"
#include "model/ops/moe_ffn.h"
#include "model/ops/prefill_attention.h"

namespace kvfathom::calibrate {
namespace {

using kernels::KvFormat;

constexpr double kRopeBase = 10000.0;

std::int64_t stored_row_bytes(KvFormat format, int n) {
  return kernels::row_data_bytes(format, n) + kernels::row_scale_bytes(format, n);
}

kernels::Rope rope_of(int head_dim, const std::vector<std::uint64_t>& turns) {
  return {.rotary_dim = head_dim, .turns_per_position = turns.data()};
}

}  // namespace

DecodeLoop::DecodeLoop(const LoopShape& shape, KvFormat cache, int max_tokens, int n_threads)
    : shape_(shape), format_(cache), n_threads_(n_threads) {
  std::uint64_t seed = 1;
  const auto matrix = [&](std::int64_t n, std::int64_t k) {
    const float deviation = 1.0F / std::sqrt(static_cast<float>(k));
    return Matrix{
        n, k, kernels::random_weights(kernels::WeightFormat::bf16, n, k, deviation, ++seed)};
  };
  const std::int64_t hidden = shape.hidden_size;
  const std::int64_t q_width = std::int64_t{shape.n_heads} * shape.head_dim;
  const std::int64_t kv_width = std::int64_t{shape.n_kv_heads} * shape.head_dim;
  const std::int64_t stack = std::max(1, shape.n_experts);
  for (int i = 0; i < shape.n_layers; ++i) {
    layers_.push_back({.qkv = matrix(q_width + 2 * kv_width, hidden),
                       .output = matrix(hidden, q_width),
                       .gate_up = matrix(2 * stack * shape.intermediate_size, hidden),
                       .down = matrix(stack * hidden, shape.intermediate_size),
                       .router = bench::random_bf16(shape.n_experts * hidden, ++seed, 0.1F),
                       .cache = std::make_unique<bench::RandomCache>(
                           bench::Place::cpu,
                           bench::RandomCacheShape{.format = cache,
                                                   .n_kv_heads = shape.n_kv_heads,
                                                   .k_dim = shape.head_dim,
                                                   .v_dim = shape.head_dim,
                                                   .tokens = max_tokens},
                           ++seed)});
  }
  embedding_ = matrix(shape.vocab_size, hidden);
  head_ = matrix(shape.vocab_size, hidden);
  norm_weight_.assign(hidden, kernels::to_bf16(1.0F).bits);
  logits_.resize(shape.vocab_size);
  turns_ = kernels::rope_turns_per_position(shape.head_dim, kRopeBase);
}

void DecodeLoop::set_rows(int n_rows) {
  if (n_rows == n_rows_) {
    return;
  }
  n_rows_ = n_rows;
  const std::size_t rows = n_rows;
  const std::size_t q_width = std::size_t(shape_.n_heads) * shape_.head_dim;
  const std::size_t kv_width = std::size_t(shape_.n_kv_heads) * shape_.head_dim;
  for (Row* row : {&residual_, &x_, &mixed_, &hidden_}) {
    row->resize(rows * shape_.hidden_size);
  }
  for (Row* row : {&queries_, &attended_}) {
    row->resize(rows * q_width);
  }
  for (Row* row : {&keys_, &values_}) {
    row->resize(rows * kv_width);
  }
  qkv_.resize(rows * (q_width + 2 * kv_width));
  inner_.resize(rows * 2 * shape_.intermediate_size);
  activated_.resize(rows * shape_.intermediate_size);
  sequences_.assign(rows, 0);
  positions_.resize(rows);
}

void DecodeLoop::enter(OpKind kind, const OpCost& cost) {
  if (ops_ != nullptr) {
    ops_->push_back({kind, cost});
  }
}

void DecodeLoop::multiply(const Matrix& weights, const Row& x, Row& out) {
  kernels::gemm_cpu(
      {.m = n_rows_,
       .weights = {kernels::WeightFormat::bf16, weights.n, weights.k, weights.data.data()},
       .x = x.data(),
       .out = out.data()},
      n_threads_);
  enter(OpKind::gemm, gemm_cost({.m = n_rows_, .n = weights.n, .k = weights.k}));
}

void DecodeLoop::norm(const Row& x, bool adds, Row& out) {
  kernels::rms_norm_cpu({.n_rows = n_rows_,
                         .n_columns = shape_.hidden_size,
                         .x = x.data(),
                         .residual = adds ? residual_.data() : nullptr,
                         .weight = norm_weight_.data(),
                         .out = out.data()},
                        n_threads_);
  enter(OpKind::elementwise,
        rms_norm_cost({.n_rows = n_rows_, .n_columns = shape_.hidden_size, .adds_residual = adds}));
}

/// Queries turn as keys do, and become what the cache's kernel takes; keys and values get rows of
/// their own: no operation of its own, as serving engines do it within others.
void DecodeLoop::turn_queries(int n_cached) {
  const kernels::Rope rope = rope_of(shape_.head_dim, turns_);
  const bool wide = format_ == KvFormat::bf16;
  const std::size_t q_width = queries_.size() / n_rows_;
  const std::size_t kv_width = keys_.size() / n_rows_;
  kernels::parallel_shares(n_threads_, n_rows_, [&](int, std::int64_t from, std::int64_t to) {
    std::vector<float> cosines(turns_.size());
    std::vector<float> sines(turns_.size());
    for (std::int64_t row = from; row < to; ++row) {
      const std::uint16_t* const q = qkv_.data() + row * (q_width + 2 * kv_width);
      std::copy_n(q + q_width, kv_width, keys_.data() + row * kv_width);
      std::copy_n(q + q_width + kv_width, kv_width, values_.data() + row * kv_width);
      for (std::size_t i = 0; i < turns_.size(); ++i) {
        const auto position = static_cast<std::int32_t>(n_cached + row);
        const float angle =
            2.0F * std::numbers::pi_v<float> * kernels::rope_turns(turns_[i], position);
        cosines[i] = std::cos(angle);
        sines[i] = std::sin(angle);
      }
      std::uint16_t* const turned = queries_.data() + row * q_width;
      for (std::size_t at = 0; at < q_width; ++at) {
        const int i = static_cast<int>(at % shape_.head_dim);
        if (i >= shape_.head_dim / 2) {
          continue;  // the second of a pair
        }
        const std::size_t head = at - i;
        const std::size_t first = head + rope_first(rope, i);
        const std::size_t second = head + rope_second(rope, i);
        const float x = kernels::to_f32(kernels::Bf16{q[first]});
        const float y = kernels::to_f32(kernels::Bf16{q[second]});
        const float turned_x = x * cosines[i] - y * sines[i];
        const float turned_y = x * sines[i] + y * cosines[i];
        turned[first] = wide ? kernels::to_bf16(turned_x).bits : kernels::to_f16(turned_x).bits;
        turned[second] = wide ? kernels::to_bf16(turned_y).bits : kernels::to_f16(turned_y).bits;
      }
    }
  });
}

void DecodeLoop::write_cache(const Layer& layer, int n_cached) {
  std::iota(positions_.begin(), positions_.end(), n_cached);
  kernels::cache_write_cpu({.n_tokens = n_rows_,
                            .head_dim = shape_.head_dim,
                            .cache = layer.cache->view(),
                            .rope = rope_of(shape_.head_dim, turns_),
                            .k = keys_.data(),
                            .v = values_.data(),
                            .sequences = sequences_.data(),
                            .slots = positions_.data(),
                            .positions = positions_.data()},
                           n_threads_);
  enter(OpKind::cache_write,
        cache_write_cost({.n_tokens = n_rows_,
                          .n_kv_heads = shape_.n_kv_heads,
                          .head_dim = shape_.head_dim,
                          .rotary_dim = shape_.head_dim,
                          .stored_row_bytes = stored_row_bytes(format_, shape_.head_dim)}));
}

void DecodeLoop::attend(const Layer& layer, int n_cached) {
  const std::int32_t length = n_cached + 1;
  attention_.resize(queries_.size());
  kernels::DecodeAttentionParams params{
      .n_heads = shape_.n_heads,
      .head_dim = shape_.head_dim,
      .cache = layer.cache->view(),
      .q = queries_.data(),
      .softmax_scale = 1.0F / std::sqrt(static_cast<float>(shape_.head_dim)),
      .out = attention_.data()};
  params.cache.lengths = &length;
  kernels::decode_attention_cpu(params, n_threads_);
  enter(OpKind::decode_attention,
        decode_attention_cost(
            {.n_heads = shape_.n_heads,
             .n_kv_heads = shape_.n_kv_heads,
             .head_dim = shape_.head_dim,
             .lengths = {length},
             .n_sequences = 1,
             .row_bytes = kernels::row_data_bytes(format_, shape_.head_dim),
             .row_scale_bytes = kernels::row_scale_bytes(format_, shape_.head_dim)}));
  for (std::size_t i = 0; i < attention_.size(); ++i) {
    attended_[i] = kernels::to_bf16(attention_[i]).bits;
  }
}

void DecodeLoop::attend_prompt(const Layer& layer, int n_cached) {
  const std::int32_t length = n_cached + n_rows_;
  const std::array<std::int32_t, 2> offsets{0, n_rows_};
  kernels::PrefillAttentionParams params{
      .n_heads = shape_.n_heads,
      .head_dim = shape_.head_dim,
      .cache = layer.cache->view(),
      .q = queries_.data(),
      .query_offsets = offsets.data(),
      .longest_query_tokens = n_rows_,
      .softmax_scale = 1.0F / std::sqrt(static_cast<float>(shape_.head_dim)),
      .out = attended_.data()};
  params.cache.lengths = &length;
  kernels::prefill_attention_cpu(params, n_threads_);
  enter(OpKind::prefill_attention,
        prefill_attention_cost({.n_query_tokens = n_rows_,
                                .n_cached_tokens = length,
                                .n_heads = shape_.n_heads,
                                .n_kv_heads = shape_.n_kv_heads,
                                .head_dim = shape_.head_dim}));
}

void DecodeLoop::feed_forward(const Layer& layer) {
  if (shape_.n_experts == 0) {
    multiply(layer.gate_up, hidden_, inner_);
    kernels::gated_activation_cpu({.n_rows = n_rows_,
                                   .n_columns = shape_.intermediate_size,
                                   .gate = inner_.data(),
                                   .up = inner_.data() + shape_.intermediate_size,
                                   .input_stride = 2 * std::int64_t{shape_.intermediate_size},
                                   .out = activated_.data()},
                                  n_threads_);
    enter(OpKind::elementwise,
          gated_activation_cost({.n_rows = n_rows_, .n_columns = shape_.intermediate_size}));
    multiply(layer.down, activated_, x_);
    return;
  }
  kernels::moe_ffn_cpu({.n_tokens = n_rows_,
                        .hidden_size = shape_.hidden_size,
                        .intermediate_size = shape_.intermediate_size,
                        .n_experts = shape_.n_experts,
                        .n_chosen = shape_.n_chosen,
                        .x = hidden_.data(),
                        .router = layer.router.data(),
                        .gate_up = layer.gate_up.data.data(),
                        .down = layer.down.data.data(),
                        .out = x_.data()},
                       n_threads_);
  enter(OpKind::moe_ffn,
        moe_ffn_cost({.n_tokens = n_rows_,
                      .hidden_size = shape_.hidden_size,
                      .intermediate_size = shape_.intermediate_size,
                      .n_experts = shape_.n_experts,
                      .n_chosen = shape_.n_chosen,
                      .n_active_experts =
                          expected_active_experts(n_rows_, shape_.n_experts, shape_.n_chosen)}));
}

void DecodeLoop::run_layer(const Layer& layer, int n_cached, bool is_prompt) {
  norm(x_, true, hidden_);
  multiply(layer.qkv, hidden_, qkv_);
  turn_queries(n_cached);
  write_cache(layer, n_cached);
  is_prompt ? attend_prompt(layer, n_cached) : attend(layer, n_cached);
  multiply(layer.output, attended_, mixed_);
  norm(mixed_, true, hidden_);
  feed_forward(layer);
}

void DecodeLoop::prompt(
    int n_tokens, int n_cached, int first_layer, int n_layers, std::vector<LoopOp>* ops) {
  ops_ = ops;
  if (n_tokens != n_rows_) {
    set_rows(n_tokens);
    if (incoming_.size() < x_.size()) {  // made once: chunks of two lengths may take turns
      incoming_ = bench::random_bf16(x_.size(), 1);
    }
    std::copy_n(incoming_.begin(), x_.size(), x_.begin());
    std::fill(residual_.begin(), residual_.end(), std::uint16_t{0});
  }
  for (int i = 0; i < n_layers; ++i) {
    run_layer(layers_[(first_layer + i) % layers_.size()], n_cached, true);
  }
}

std::int32_t DecodeLoop::step(std::int32_t token, int n_cached, std::vector<LoopOp>* ops) {
  ops_ = ops;
  set_rows(1);
  const auto* const rows = reinterpret_cast<const std::uint16_t*>(embedding_.data.data());
  const std::uint16_t* const row = rows + std::ptrdiff_t{token} * shape_.hidden_size;
  x_.assign(row, row + shape_.hidden_size);
  std::fill(residual_.begin(), residual_.end(), std::uint16_t{0});
  for (const Layer& layer : layers_) {
    run_layer(layer, n_cached, false);
  }
  norm(x_, true, hidden_);
  multiply(head_, hidden_, logits_);
  std::int32_t next = 0;
  kernels::sample_cpu({.n_rows = 1,
                       .vocab_size = shape_.vocab_size,
                       .element = kernels::Element::bf16,
                       .logits = logits_.data(),
                       .temperature = 0.0F,
                       .tokens = &next},
                      n_threads_);
  enter(OpKind::elementwise, sample_cost(1, shape_.vocab_size, false, Bytes(2.0)));
  return next;
}

}  // namespace kvfathom::calibrate
