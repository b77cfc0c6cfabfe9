// Random chunks of queries over a random cache, on the host and on the device, and what is right.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "kernels/common/tolerance.h"
#include "kernels/prefill_attention/prefill_attention.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/kv_cache_data.h"

namespace kvfathom::kernels {

struct PrefillSpec {
  KvCacheSpec cache;           ///< lengths include the new tokens
  std::vector<int> n_queries;  ///< new tokens of each sequence
  int heads_per_kv_head = 1;
  int window_tokens = 0;
};

class PrefillCase {
 public:
  explicit PrefillCase(const PrefillSpec& spec)
      : cache(spec.cache), spec_(spec), n_heads_(spec.cache.n_kv_heads * spec.heads_per_kv_head) {
    offsets_ = {0};
    for (const int n : spec.n_queries) {
      offsets_.push_back(offsets_.back() + n);
    }
    RandomData random(spec.cache.seed + 1000);
    q_.resize(n_outputs());
    for (std::uint16_t& bits : q_) {
      bits = narrow(random.normal());
    }
  }

  /// Query `row` of a head sees little but `token`.
  void plant(int sequence, int row, int head, int token) {
    const std::size_t first =
        (static_cast<std::size_t>(offsets_[sequence] + row) * n_heads_ + head) * head_dim();
    std::vector<float> q(head_dim());
    for (std::size_t i = 0; i < q.size(); ++i) {
      q[i] = widen(q_[first + i]);
    }
    const float score = 12.0F * std::sqrt(static_cast<float>(head_dim()));
    cache.plant_dominant(sequence, head / spec_.heads_per_kv_head, token, q, score);
  }
  void set_q(float value) { std::fill(q_.begin(), q_.end(), narrow(value)); }

  [[nodiscard]] int head_dim() const { return spec_.cache.k_dim; }
  [[nodiscard]] int n_heads() const { return n_heads_; }
  [[nodiscard]] const PrefillSpec& spec() const { return spec_; }
  [[nodiscard]] std::size_t n_outputs() const {
    return static_cast<std::size_t>(offsets_.back()) * n_heads_ * head_dim();
  }
  [[nodiscard]] double unit_roundoff() const {
    return spec_.cache.format == KvFormat::bf16 ? kUnitRoundoffBf16 : kUnitRoundoffF16;
  }
  [[nodiscard]] float widen(std::uint16_t bits) const {
    return spec_.cache.format == KvFormat::bf16 ? to_f32(Bf16{bits}) : to_f32(F16{bits});
  }

  [[nodiscard]] PrefillAttentionParams host_params() const {
    return params(cache.host(), q_.data(), offsets_.data(), nullptr);
  }
  [[nodiscard]] std::vector<float> on_cpu(int n_threads) const {
    std::vector<std::uint16_t> out(n_outputs(), kNan);
    prefill_attention_cpu(params(cache.host(), q_.data(), offsets_.data(), out.data()), n_threads);
    return widened(out);
  }

  /// What a test may change between the plan and the launch.
  struct Mutation {
    int q_rows_later = 0;  ///< every query one place further on: sees one token too many
    float scale_factor = 1.0F;
    int window_more = 0;
    bool first_kv_head_only = false;
  };
  [[nodiscard]] std::vector<float> on_device(const PrefillAttentionPlan& plan, const Mutation& m) {
    const DeviceArray<std::uint16_t> q(q_);
    const DeviceArray<std::int32_t> offsets(offsets_);
    const DeviceArray<std::uint16_t> out(std::vector<std::uint16_t>(n_outputs(), kNan));
    PrefillAttentionParams p = params(cache.device(), q.data(), offsets.data(), out.data());
    p.softmax_scale *= m.scale_factor;
    p.window_tokens += m.window_more;
    std::vector<std::int32_t> lengths;
    for (const int length : spec_.cache.lengths) {
      lengths.push_back(length - m.q_rows_later);
    }
    const DeviceArray<std::int32_t> device_lengths(lengths);
    p.cache.lengths = device_lengths.data();
    if (m.first_kv_head_only) {
      p.cache.k.head_stride_bytes = 0;
    }
    prefill_attention_launch(p, plan, nullptr);
    synchronize();
    return widened(out.to_host());
  }
  [[nodiscard]] std::vector<float> on_device(const PrefillAttentionPlan& plan) {
    return on_device(plan, Mutation{});
  }
  [[nodiscard]] PrefillAttentionPlan plan(PrefillKernel kernel = PrefillKernel::automatic) const {
    return prefill_attention_plan(host_params(), kernels::device(), kernel);
  }
  /// CUDA cores and the CPU round only what they write; tensor cores the softmax weights too.
  [[nodiscard]] Roundings roundings(PrefillKernel kernel) const {
    return Roundings{
        .output = unit_roundoff(),
        .probabilities = kernel == PrefillKernel::tensor_cores ? unit_roundoff() : 0.0};
  }

  [[nodiscard]] Comparison against_reference(const std::vector<float>& got,
                                             PrefillKernel kernel) const {
    const std::vector<double>& want = reference();
    std::vector<double> bounds(n_outputs());
    for (std::size_t i = 0; i < bounds.size(); ++i) {
      bounds[i] =
          attention_bound(want[i],
                          {.weighted_v = weighted_abs_v_[i], .score = scores_[i / head_dim()]},
                          cache.longest(),
                          head_dim(),
                          roundings(kernel));
    }
    return compare<float>(got, want, bounds);
  }
  [[nodiscard]] const std::vector<double>& reference() const {
    if (want_.empty()) {
      want_.resize(n_outputs());
      weighted_abs_v_.resize(n_outputs());
      scores_.resize(n_outputs() / head_dim());
      prefill_attention_reference(host_params(),
                                  {want_.data(), weighted_abs_v_.data(), scores_.data()});
    }
    return want_;
  }

  KvCacheData cache;

 private:
  static constexpr std::uint16_t kNan = 0xffff;

  [[nodiscard]] std::uint16_t narrow(float value) const {
    return spec_.cache.format == KvFormat::bf16 ? to_bf16(value).bits : to_f16(value).bits;
  }
  [[nodiscard]] std::vector<float> widened(const std::vector<std::uint16_t>& bits) const {
    std::vector<float> values;
    for (const std::uint16_t x : bits) {
      values.push_back(widen(x));
    }
    return values;
  }
  [[nodiscard]] PrefillAttentionParams params(const KvCacheView& view,
                                              const std::uint16_t* q,
                                              const std::int32_t* offsets,
                                              std::uint16_t* out) const {
    PrefillAttentionParams p;
    p.n_heads = n_heads_;
    p.head_dim = head_dim();
    p.cache = view;
    p.q = q;
    p.query_offsets = offsets;
    p.longest_query_tokens = *std::max_element(spec_.n_queries.begin(), spec_.n_queries.end());
    p.softmax_scale = 1.0F / std::sqrt(static_cast<float>(head_dim()));
    p.window_tokens = spec_.window_tokens;
    p.out = out;
    return p;
  }

  PrefillSpec spec_;
  int n_heads_;
  std::vector<std::int32_t> offsets_;
  std::vector<std::uint16_t> q_;
  mutable std::vector<double> want_, weighted_abs_v_, scores_;
};

}  // namespace kvfathom::kernels
