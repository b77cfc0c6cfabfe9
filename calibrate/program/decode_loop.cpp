#include "calibrate/program/decode_loop.h"

#include <cmath>
#include <numbers>

#include "kernels/cache_write/cache_write.h"
#include "kernels/common/number_formats.h"
#include "kernels/common/rope.h"
#include "kernels/common/weight_format.h"
#include "kernels/decode_attention/decode_attention.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/gemm.h"
#include "kernels/moe_ffn/moe_ffn.h"
#include "model/architecture/tensor_inventory.h"
#include "model/ops/cache_write.h"
#include "model/ops/decode_attention.h"
#include "model/ops/elementwise.h"
#include "model/ops/gemm.h"
#include "model/ops/moe_ffn.h"

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

ModelSpec spec_of(const LoopShape& shape) {
  ModelSpec model;
  model.name = "random";
  model.architecture = "llama";
  model.hidden_size = shape.hidden_size;
  model.vocab_size = shape.vocab_size;
  model.weight_dtype = DType::bf16;
  LayerSpec layer;
  layer.mixer = Attention{.n_heads = shape.n_heads,
                          .n_kv_heads = shape.n_kv_heads,
                          .head_dim = shape.head_dim,
                          .v_head_dim = shape.head_dim,
                          .rope_dim = shape.head_dim};
  if (shape.n_experts > 0) {
    layer.feed_forward = MixtureOfExperts{.n_experts = shape.n_experts,
                                          .n_experts_per_token = shape.n_chosen,
                                          .intermediate_size = shape.intermediate_size};
  } else {
    layer.feed_forward = DenseFeedForward{.intermediate_size = shape.intermediate_size};
  }
  model.layers.assign(static_cast<std::size_t>(shape.n_layers), layer);
  model.tensors = tensor_inventory(model);
  return model;
}

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
  for (Row* row : {&residual_, &x_, &mixed_, &hidden_}) {
    row->resize(hidden);
  }
  qkv_.resize(q_width + 2 * kv_width);
  queries_.resize(q_width);
  attention_.resize(q_width);
  activated_.resize(q_width);
  inner_.resize(2 * std::int64_t{shape.intermediate_size});
  logits_.resize(shape.vocab_size);
  turns_ = kernels::rope_turns_per_position(shape.head_dim, kRopeBase);
}

void DecodeLoop::enter(OpKind kind, const OpCost& cost) {
  if (ops_ != nullptr) {
    ops_->push_back({kind, cost});
  }
}

void DecodeLoop::multiply(const Matrix& weights, const Row& x, Row& out) {
  kernels::gemm_cpu(
      {.m = 1,
       .weights = {kernels::WeightFormat::bf16, weights.n, weights.k, weights.data.data()},
       .x = x.data(),
       .out = out.data()},
      n_threads_);
  enter(OpKind::gemm, gemm_cost({.m = 1, .n = weights.n, .k = weights.k}));
}

void DecodeLoop::norm(const Row& x, bool adds, Row& out) {
  kernels::rms_norm_cpu({.n_rows = 1,
                         .n_columns = shape_.hidden_size,
                         .x = x.data(),
                         .residual = adds ? residual_.data() : nullptr,
                         .weight = norm_weight_.data(),
                         .out = out.data()},
                        n_threads_);
  enter(OpKind::elementwise,
        rms_norm_cost({.n_rows = 1, .n_columns = shape_.hidden_size, .adds_residual = adds}));
}

/// Queries turn as keys do, and become what the cache's kernel takes: no operation of its own, as
/// serving engines do it within others.
void DecodeLoop::turn_queries(int position) {
  const kernels::Rope rope = rope_of(shape_.head_dim, turns_);
  const bool wide = format_ == KvFormat::bf16;
  for (int head = 0; head < shape_.n_heads; ++head) {
    const std::size_t row = static_cast<std::size_t>(head) * shape_.head_dim;
    for (int i = 0; i < shape_.head_dim / 2; ++i) {
      const std::size_t first = row + rope_first(rope, i);
      const std::size_t second = row + rope_second(rope, i);
      const float angle =
          2.0F * std::numbers::pi_v<float> * kernels::rope_turns(turns_[i], position);
      const float x = kernels::to_f32(kernels::Bf16{qkv_[first]});
      const float y = kernels::to_f32(kernels::Bf16{qkv_[second]});
      const float turned_x = x * std::cos(angle) - y * std::sin(angle);
      const float turned_y = x * std::sin(angle) + y * std::cos(angle);
      queries_[first] = wide ? kernels::to_bf16(turned_x).bits : kernels::to_f16(turned_x).bits;
      queries_[second] = wide ? kernels::to_bf16(turned_y).bits : kernels::to_f16(turned_y).bits;
    }
  }
}

void DecodeLoop::write_cache(const Layer& layer, int n_cached) {
  const std::int32_t sequence = 0;
  const std::uint16_t* const k = qkv_.data() + queries_.size();
  kernels::cache_write_cpu(
      {.n_tokens = 1,
       .head_dim = shape_.head_dim,
       .cache = layer.cache->view(),
       .rope = rope_of(shape_.head_dim, turns_),
       .k = k,
       .v = k + static_cast<std::ptrdiff_t>(shape_.n_kv_heads) * shape_.head_dim,
       .sequences = &sequence,
       .slots = &n_cached,
       .positions = &n_cached},
      n_threads_);
  enter(OpKind::cache_write,
        cache_write_cost({.n_tokens = 1,
                          .n_kv_heads = shape_.n_kv_heads,
                          .head_dim = shape_.head_dim,
                          .rotary_dim = shape_.head_dim,
                          .stored_row_bytes = stored_row_bytes(format_, shape_.head_dim)}));
}

void DecodeLoop::attend(const Layer& layer, int n_cached) {
  turn_queries(n_cached);
  write_cache(layer, n_cached);
  const std::int32_t length = n_cached + 1;
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
    activated_[i] = kernels::to_bf16(attention_[i]).bits;
  }
}

void DecodeLoop::feed_forward(const Layer& layer) {
  if (shape_.n_experts == 0) {
    multiply(layer.gate_up, hidden_, inner_);
    Row product(shape_.intermediate_size);
    kernels::gated_activation_cpu({.n_rows = 1,
                                   .n_columns = shape_.intermediate_size,
                                   .gate = inner_.data(),
                                   .up = inner_.data() + shape_.intermediate_size,
                                   .input_stride = 2 * std::int64_t{shape_.intermediate_size},
                                   .out = product.data()},
                                  n_threads_);
    enter(OpKind::elementwise,
          gated_activation_cost({.n_rows = 1, .n_columns = shape_.intermediate_size}));
    multiply(layer.down, product, x_);
    return;
  }
  kernels::moe_ffn_cpu({.n_tokens = 1,
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
        moe_ffn_cost({.n_tokens = 1,
                      .hidden_size = shape_.hidden_size,
                      .intermediate_size = shape_.intermediate_size,
                      .n_experts = shape_.n_experts,
                      .n_chosen = shape_.n_chosen,
                      .n_active_experts = static_cast<double>(shape_.n_chosen)}));
}

std::int32_t DecodeLoop::step(std::int32_t token, int n_cached, std::vector<LoopOp>* ops) {
  ops_ = ops;
  const auto* const rows = reinterpret_cast<const std::uint16_t*>(embedding_.data.data());
  const std::uint16_t* const row = rows + std::ptrdiff_t{token} * shape_.hidden_size;
  x_.assign(row, row + shape_.hidden_size);
  std::fill(residual_.begin(), residual_.end(), std::uint16_t{0});
  for (const Layer& layer : layers_) {
    norm(x_, true, hidden_);
    multiply(layer.qkv, hidden_, qkv_);
    attend(layer, n_cached);
    multiply(layer.output, activated_, mixed_);
    norm(mixed_, true, hidden_);
    feed_forward(layer);
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
