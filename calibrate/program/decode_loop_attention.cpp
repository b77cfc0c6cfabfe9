// What a loop's layers do between their first norm and the output projection: project, rotate,
// write to the cache and attend, by scheme.
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <numeric>

#include "calibrate/program/decode_loop.h"
#include "kernels/cache_write/cache_write.h"
#include "kernels/common/number_formats.h"
#include "kernels/common/parallel.h"
#include "kernels/common/rope.h"
#include "kernels/decode_attention/decode_attention.h"
#include "kernels/gemm/gemm.h"
#include "kernels/mla_decode/mla_decode.h"
#include "kernels/prefill_attention/prefill_attention.h"
#include "kernels/residual_recompute/residual_recompute.h"
#include "kernels/value_reconstruction/value_reconstruction.h"
#include "model/ops/cache_write.h"
#include "model/ops/decode_attention.h"
#include "model/ops/gemm.h"
#include "model/ops/mla_decode.h"
#include "model/ops/prefill_attention.h"
#include "model/ops/residual_recompute.h"
#include "model/ops/value_reconstruction.h"

namespace kvfathom::calibrate {
namespace {

using kernels::KvFormat;

std::int64_t stored_row_bytes(KvFormat format, int n) {
  return kernels::row_data_bytes(format, n) + kernels::row_scale_bytes(format, n);
}

kernels::Rope rope_of(const std::vector<std::uint64_t>& turns) {
  return {.rotary_dim = static_cast<int>(2 * turns.size()), .turns_per_position = turns.data()};
}

/// Bf16 as it comes; as Bf16 or F16 it goes. What serving engines do within other operations, and
/// is none here.
void turn(const std::vector<std::uint64_t>& turns,
          const float* cosines_sines,
          const std::uint16_t* from,
          KvFormat as,
          std::uint16_t* to) {
  const kernels::Rope rope = rope_of(turns);
  const float* const sines = cosines_sines + turns.size();
  const auto narrowed = [&](float x) {
    return as == KvFormat::bf16 ? kernels::to_bf16(x).bits : kernels::to_f16(x).bits;
  };
  for (int i = 0; i < rope.rotary_dim / 2; ++i) {
    const int first = rope_first(rope, i);
    const int second = rope_second(rope, i);
    const float x = kernels::to_f32(kernels::Bf16{from[first]});
    const float y = kernels::to_f32(kernels::Bf16{from[second]});
    to[first] = narrowed(x * cosines_sines[i] - y * sines[i]);
    to[second] = narrowed(x * sines[i] + y * cosines_sines[i]);
  }
}

void narrow(const std::vector<float>& from, std::vector<std::uint16_t>& to) {
  to.resize(from.size());
  std::ranges::transform(from, to.begin(), [](float x) { return kernels::to_bf16(x).bits; });
}

float softmax_scale(int head_dim) {
  return 1.0F / std::sqrt(static_cast<float>(head_dim));
}

}  // namespace

void DecodeLoop::attend(Layer& layer, int n_cached) {
  if (shape_.latents.kv_lora_rank > 0) {
    write_latents(layer, n_cached);
    attend_latents(layer, n_cached);
    return;
  }
  project_and_write(layer, n_cached);
  if (cache_.scheme == LoopScheme::k_only) {
    attend_keys(layer, n_cached);
    return;
  }
  if (cache_.scheme == LoopScheme::residual) {
    rebuild(layer, n_cached);
  }
  attend_rows(layer, n_cached);
}

void DecodeLoop::project_and_write(const Layer& layer, int n_cached) {
  multiply(layer.qkv, hidden_, qkv_);
  turn_queries();
  const bool has_v = n_planes() == 2;
  std::iota(positions_.begin(), positions_.end(), n_cached);
  kernels::cache_write_cpu({.n_tokens = n_rows_,
                            .head_dim = shape_.head_dim,
                            .cache = layer.cache->view(),
                            .rope = rope_of(turns_),
                            .k = keys_.data(),
                            .v = has_v ? values_.data() : nullptr,
                            .sequences = sequences_.data(),
                            .slots = positions_.data(),
                            .positions = positions_.data()},
                           n_threads_);
  enter(OpKind::cache_write,
        cache_write_cost({.n_tokens = n_rows_,
                          .n_kv_heads = shape_.n_kv_heads,
                          .head_dim = shape_.head_dim,
                          .rotary_dim = shape_.head_dim,
                          .stored_row_bytes = stored_row_bytes(cache_.format, shape_.head_dim),
                          .has_v = has_v}));
}

/// Once for all layers of a step: cosines, then sines, of every row's position.
void DecodeLoop::find_angles(int n_cached) {
  const std::size_t n = turns_.size();
  angles_.resize(2 * n * n_rows_);
  for (std::size_t row = 0; row < static_cast<std::size_t>(n_rows_); ++row) {
    const auto position = static_cast<std::int32_t>(n_cached + row);
    float* const of_row = angles_.data() + row * 2 * n;
    for (std::size_t i = 0; i < n; ++i) {
      const float angle =
          2.0F * std::numbers::pi_v<float> * kernels::rope_turns(turns_[i], position);
      of_row[i] = std::cos(angle);
      of_row[n + i] = std::sin(angle);
    }
  }
}

/// Queries turn as keys do, and become what the cache's kernel takes; keys and values get rows of
/// their own.
void DecodeLoop::turn_queries() {
  const auto q_width = static_cast<std::int64_t>(queries_.size()) / n_rows_;
  const auto kv_width = static_cast<std::int64_t>(keys_.size()) / n_rows_;
  kernels::parallel_shares(n_threads_, n_rows_, [&](int, std::int64_t from, std::int64_t to) {
    for (std::int64_t row = from; row < to; ++row) {
      const std::uint16_t* const q = qkv_.data() + row * (q_width + n_planes() * kv_width);
      std::copy_n(q + q_width, kv_width, keys_.data() + row * kv_width);
      if (n_planes() == 2) {
        std::copy_n(q + q_width + kv_width, kv_width, values_.data() + row * kv_width);
      }
      const float* const angles =
          angles_.data() + row * 2 * static_cast<std::int64_t>(turns_.size());
      for (std::int64_t head = 0; head < q_width; head += shape_.head_dim) {
        turn(turns_, angles, q + head, cache_.format, queries_.data() + row * q_width + head);
      }
    }
  });
}

/// K and V of every token so far, from what the layer was given.
void DecodeLoop::rebuild(Layer& layer, int n_cached) {
  const std::int64_t hidden = shape_.hidden_size;
  const int n_tokens = n_cached + 1;
  std::ranges::copy(residual_, layer.inputs.begin() + n_cached * hidden);
  std::vector<std::int32_t> slots(static_cast<std::size_t>(n_tokens));
  std::iota(slots.begin(), slots.end(), 0);
  const std::vector<std::int32_t> sequences(slots.size(), 0);
  const auto* const weights = reinterpret_cast<const kernels::Bf16*>(layer.qkv.data.data());
  kernels::ResidualRecomputeParams params;
  params.x = {.n_columns = shape_.hidden_size, .data = layer.inputs.data()};
  params.norm_weight = reinterpret_cast<const kernels::Bf16*>(norm_weight_.data());
  params.weights = weights + q_width() * hidden;
  params.to = {.n_tokens = n_tokens,
               .head_dim = shape_.head_dim,
               .cache = layer.cache->view(),
               .rope = rope_of(turns_),
               .sequences = sequences.data(),
               .slots = slots.data(),
               .positions = slots.data()};
  kernels::residual_recompute_cpu(params, n_threads_);
  enter(OpKind::residual_recompute,
        residual_recompute_cost(
            {.n_tokens = n_tokens,
             .n_columns = hidden,
             .stored_row_bytes = 2.0 * static_cast<double>(hidden),
             .n_kv_heads = shape_.n_kv_heads,
             .head_dim = shape_.head_dim,
             .rotary_dim = shape_.head_dim,
             .cache_row_bytes = stored_row_bytes(cache_.format, shape_.head_dim)}));
}

void DecodeLoop::attend_rows(const Layer& layer, int n_cached) {
  const std::int32_t length = n_cached + 1;
  attention_.resize(queries_.size());
  kernels::DecodeAttentionParams params{.n_heads = shape_.n_heads,
                                        .head_dim = shape_.head_dim,
                                        .cache = layer.cache->view(),
                                        .q = queries_.data(),
                                        .softmax_scale = softmax_scale(shape_.head_dim),
                                        .window_tokens = shape_.window_tokens,
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
             .window_tokens = shape_.window_tokens,
             .row_bytes = kernels::row_data_bytes(cache_.format, shape_.head_dim),
             .row_scale_bytes = kernels::row_scale_bytes(cache_.format, shape_.head_dim)}));
  narrow(attention_, attended_);
}

void DecodeLoop::attend_keys(const Layer& layer, int n_cached) {
  const std::int32_t length = n_cached + 1;
  attention_.resize(queries_.size());
  kernels::ValueReconstructionParams params;
  params.n_heads = shape_.n_heads;
  params.head_dim = shape_.head_dim;
  params.cache = layer.cache->view();
  params.cache.lengths = &length;
  params.cos_sin = cos_sin_.data();
  params.projector = layer.projector.data();
  params.q = queries_.data();
  params.softmax_scale = softmax_scale(shape_.head_dim);
  params.out = attention_.data();
  kernels::value_decode_cpu(params, n_threads_);
  enter(OpKind::value_reconstruction,
        value_decode_cost({.n_tokens = length,
                           .n_heads = shape_.n_heads,
                           .n_kv_heads = shape_.n_kv_heads,
                           .head_dim = shape_.head_dim,
                           .keys_rotated = true}));
  narrow(attention_, attended_);
}

/// The cached row is the latent and, behind it, the rotated key that all heads share.
void DecodeLoop::write_latents(const Layer& layer, int n_cached) {
  const LoopLatents& of = shape_.latents;
  multiply(layer.qkv, hidden_, queries_);
  multiply(layer.latents, hidden_, latents_);
  const std::int64_t head_dim = of.qk_nope_head_dim + of.qk_rope_head_dim;
  for (std::int64_t head = 0; head < shape_.n_heads; ++head) {
    std::uint16_t* const q = queries_.data() + head * head_dim + of.qk_nope_head_dim;
    turn(turns_, angles_.data(), q, KvFormat::bf16, q);
  }
  std::uint16_t* const key = latents_.data() + of.kv_lora_rank;
  turn(turns_, angles_.data(), key, KvFormat::bf16, key);
  const int row = of.kv_lora_rank + of.qk_rope_head_dim;
  positions_.front() = n_cached;
  kernels::cache_write_cpu({.n_tokens = 1,
                            .head_dim = row,
                            .cache = layer.cache->view(),
                            .k = latents_.data(),
                            .sequences = sequences_.data(),
                            .slots = positions_.data()},
                           n_threads_);
  enter(OpKind::cache_write,
        cache_write_cost({.n_tokens = 1,
                          .n_kv_heads = 1,
                          .head_dim = row,
                          .stored_row_bytes = stored_row_bytes(cache_.format, row),
                          .has_v = false}));
}

void DecodeLoop::attend_latents(const Layer& layer, int n_cached) {
  const LoopLatents& of = shape_.latents;
  const std::int32_t length = n_cached + 1;
  const std::int64_t head_dim = of.qk_nope_head_dim + of.qk_rope_head_dim;
  const std::int64_t row = of.kv_lora_rank + of.qk_rope_head_dim;
  Row of_heads;
  multiply_heads(layer.absorb_k, queries_, head_dim, of_heads);
  absorbed_.resize(shape_.n_heads * row);
  for (std::int64_t head = 0; head < shape_.n_heads; ++head) {
    std::uint16_t* const to = absorbed_.data() + head * row;
    std::copy_n(of_heads.data() + head * of.kv_lora_rank, of.kv_lora_rank, to);
    std::copy_n(queries_.data() + head * head_dim + of.qk_nope_head_dim,
                of.qk_rope_head_dim,
                to + of.kv_lora_rank);
  }
  attention_.resize(std::size_t(shape_.n_heads) * of.kv_lora_rank);
  kernels::MlaDecodeParams params{.n_heads = shape_.n_heads,
                                  .kv_lora_rank = of.kv_lora_rank,
                                  .qk_rope_head_dim = of.qk_rope_head_dim,
                                  .cache = layer.cache->view(),
                                  .q = absorbed_.data(),
                                  .softmax_scale = softmax_scale(static_cast<int>(head_dim)),
                                  .out = attention_.data()};
  params.cache.lengths = &length;
  kernels::mla_decode_cpu(params, n_threads_);
  enter(OpKind::mla_decode,
        mla_decode_cost({.n_sequences = 1,
                         .n_cached_tokens = length,
                         .n_heads = shape_.n_heads,
                         .kv_lora_rank = of.kv_lora_rank,
                         .qk_rope_head_dim = of.qk_rope_head_dim,
                         .n_splits = 1}));
  narrow(attention_, of_heads);
  multiply_heads(layer.absorb_v, of_heads, of.kv_lora_rank, attended_);
}

void DecodeLoop::multiply_heads(const Matrix& weights,
                                const Row& x,
                                std::int64_t x_stride,
                                Row& out) {
  const std::int64_t n = weights.n / shape_.n_heads;
  const std::int64_t matrix_bytes = 2 * n * weights.k;
  out.resize(weights.n);
  kernels::parallel_shares(
      n_threads_, shape_.n_heads, [&](int, std::int64_t first, std::int64_t last) {
        for (std::int64_t head = first; head < last; ++head) {
          kernels::gemm_cpu({.m = 1,
                             .weights = {kernels::WeightFormat::bf16,
                                         n,
                                         weights.k,
                                         weights.data.data() + head * matrix_bytes},
                             .x = x.data() + head * x_stride,
                             .out = out.data() + head * n},
                            1);
        }
      });
  OpCost cost = shape_.n_heads * gemm_cost({.m = 1, .n = n, .k = weights.k});
  cost.launches = 1;
  enter(OpKind::gemm, cost);
}

void DecodeLoop::attend_prompt(const Layer& layer, int n_cached) {
  project_and_write(layer, n_cached);
  const std::int32_t length = n_cached + n_rows_;
  const std::array<std::int32_t, 2> offsets{0, n_rows_};
  kernels::PrefillAttentionParams params{.n_heads = shape_.n_heads,
                                         .head_dim = shape_.head_dim,
                                         .cache = layer.cache->view(),
                                         .q = queries_.data(),
                                         .query_offsets = offsets.data(),
                                         .longest_query_tokens = n_rows_,
                                         .softmax_scale = softmax_scale(shape_.head_dim),
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

}  // namespace kvfathom::calibrate
