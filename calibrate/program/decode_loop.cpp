#include "calibrate/program/decode_loop.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/number_formats.h"
#include "kernels/common/parallel.h"
#include "kernels/common/rope.h"
#include "kernels/common/weight_format.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/gemm.h"
#include "kernels/moe_ffn/moe_ffn.h"
#include "kernels/value_reconstruction/value_reconstruction.h"
#include "model/ops/elementwise.h"
#include "model/ops/gemm.h"
#include "model/ops/moe_ffn.h"

namespace kvfathom::calibrate {
namespace {

constexpr double kRopeBase = 10000.0;

bench::RandomCacheShape cache_shape(const LoopShape& shape, LoopCache cache, int max_tokens) {
  const LoopLatents& latents = shape.latents;
  bench::RandomCacheShape rows{.format = cache.format, .tokens = max_tokens};
  if (latents.kv_lora_rank > 0) {
    rows.k_dim = latents.kv_lora_rank + latents.qk_rope_head_dim;
    rows.v_dim = 0;
    return rows;
  }
  rows.n_kv_heads = shape.n_kv_heads;
  rows.k_dim = shape.head_dim;
  rows.v_dim = cache.scheme == LoopScheme::k_only ? 0 : shape.head_dim;
  return rows;
}

}  // namespace

DecodeLoop::DecodeLoop(const LoopShape& shape, LoopCache cache, int max_tokens, int n_threads)
    : shape_(shape), cache_(cache), n_threads_(n_threads) {
  constexpr std::uint64_t kOtherSeeds = 1'000'000;  // so that every scheme has the same weights
  std::uint64_t seed = 1;
  const auto matrix = [&](std::int64_t n, std::int64_t k) {
    const float deviation = 1.0F / std::sqrt(static_cast<float>(k));
    return Matrix{
        n, k, kernels::random_weights(kernels::WeightFormat::bf16, n, k, deviation, ++seed)};
  };
  const std::int64_t hidden = shape.hidden_size;
  const std::int64_t stack = std::max(1, shape.n_experts);
  const std::int64_t kv_width = std::int64_t{shape.n_kv_heads} * shape.head_dim;
  const LoopLatents& of = shape.latents;
  const bool is_latent = of.kv_lora_rank > 0;
  for (int i = 0; i < shape.n_layers; ++i) {
    layers_.push_back({.qkv = matrix(q_width() + n_planes() * kv_width, hidden),
                       .output = matrix(hidden, attended_width()),
                       .gate_up = matrix(2 * stack * shape.intermediate_size, hidden),
                       .down = matrix(stack * hidden, shape.intermediate_size),
                       .router = bench::random_bf16(shape.n_experts * hidden, ++seed, 0.1F),
                       .cache = std::make_unique<bench::RandomCache>(
                           bench::Place::cpu, cache_shape(shape, cache, max_tokens), ++seed)});
    Layer& layer = layers_.back();
    if (is_latent) {
      layer.latents = matrix(of.kv_lora_rank + of.qk_rope_head_dim, hidden);
      layer.absorb_k = matrix(std::int64_t{shape.n_heads} * of.kv_lora_rank, of.qk_nope_head_dim);
      layer.absorb_v = matrix(std::int64_t{shape.n_heads} * of.v_head_dim, of.kv_lora_rank);
    }
    if (cache.scheme == LoopScheme::k_only) {
      const float deviation = 1.0F / std::sqrt(static_cast<float>(kv_width));
      layer.projector = bench::random_bf16(kv_width * kv_width, kOtherSeeds + i, deviation);
    } else if (cache.scheme == LoopScheme::residual) {
      layer.inputs = bench::random_bf16(max_tokens * hidden, kOtherSeeds + i);
    }
  }
  embedding_ = matrix(shape.vocab_size, hidden);
  head_ = matrix(shape.vocab_size, hidden);
  norm_weight_.assign(hidden, kernels::to_bf16(1.0F).bits);
  logits_.resize(shape.vocab_size);
  turns_ =
      kernels::rope_turns_per_position(is_latent ? of.qk_rope_head_dim : shape.head_dim, kRopeBase);
  if (cache.scheme == LoopScheme::k_only) {
    cos_sin_ = kernels::rotation_cos_sin(shape.head_dim, kRopeBase, max_tokens);
  }
}

std::int64_t DecodeLoop::q_width() const {
  const LoopLatents& of = shape_.latents;
  return std::int64_t{shape_.n_heads} *
         (of.kv_lora_rank > 0 ? of.qk_nope_head_dim + of.qk_rope_head_dim : shape_.head_dim);
}

std::int64_t DecodeLoop::n_planes() const {
  return shape_.latents.kv_lora_rank > 0 ? 0 : cache_.scheme == LoopScheme::k_only ? 1 : 2;
}

std::int64_t DecodeLoop::attended_width() const {
  const LoopLatents& of = shape_.latents;
  return std::int64_t{shape_.n_heads} * (of.kv_lora_rank > 0 ? of.v_head_dim : shape_.head_dim);
}

void DecodeLoop::set_rows(int n_rows) {
  if (n_rows == n_rows_) {
    return;
  }
  n_rows_ = n_rows;
  const std::size_t rows = n_rows;
  const std::size_t kv_width = std::size_t(shape_.n_kv_heads) * shape_.head_dim;
  for (Row* row : {&residual_, &x_, &mixed_, &hidden_}) {
    row->resize(rows * shape_.hidden_size);
  }
  queries_.resize(rows * q_width());
  attended_.resize(rows * attended_width());
  if (const LoopLatents& of = shape_.latents; of.kv_lora_rank > 0) {
    latents_.resize(rows * (of.kv_lora_rank + of.qk_rope_head_dim));
  } else {
    for (Row* row : {&keys_, &values_}) {
      row->resize(rows * kv_width);
    }
    qkv_.resize(rows * (q_width() + n_planes() * kv_width));
  }
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

void DecodeLoop::run_layer(Layer& layer, int n_cached, bool is_prompt) {
  norm(x_, true, hidden_);
  is_prompt ? attend_prompt(layer, n_cached) : attend(layer, n_cached);
  multiply(layer.output, attended_, mixed_);
  norm(mixed_, true, hidden_);
  feed_forward(layer);
}

void DecodeLoop::prompt(int n_tokens, int n_cached, int n_layers, std::vector<LoopOp>* ops) {
  ops_ = ops;
  if (n_tokens != n_rows_) {
    set_rows(n_tokens);
    if (incoming_.size() < x_.size()) {  // made once: chunks of two lengths may take turns
      incoming_ = bench::random_bf16(x_.size(), 1);
    }
    std::copy_n(incoming_.begin(), x_.size(), x_.begin());
    std::fill(residual_.begin(), residual_.end(), std::uint16_t{0});
  }
  find_angles(n_cached);
  for (int i = 0; i < n_layers; ++i) {
    run_layer(layers_[i], n_cached, true);
  }
}

std::int32_t DecodeLoop::step(std::int32_t token, int n_cached, std::vector<LoopOp>* ops) {
  ops_ = ops;
  set_rows(1);
  find_angles(n_cached);
  const auto* const rows = reinterpret_cast<const std::uint16_t*>(embedding_.data.data());
  const std::uint16_t* const row = rows + std::ptrdiff_t{token} * shape_.hidden_size;
  x_.assign(row, row + shape_.hidden_size);
  std::fill(residual_.begin(), residual_.end(), std::uint16_t{0});
  for (Layer& layer : layers_) {
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
