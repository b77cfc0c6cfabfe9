// One call of decode attention on random data: its buffers on both sides, and what is expected.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/common/tolerance.h"
#include "kernels/decode_attention/decode_attention.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/kv_cache_data.h"

namespace kvfathom::kernels {

struct DecodeAttentionSpec {
  KvCacheSpec cache;
  int heads_per_kv_head = 1;
  float q_deviation = 1.0F;
  int window_tokens = 0;
  int sink_tokens = 0;
  bool sink_logits = false;
};

class DecodeAttentionCase {
 public:
  explicit DecodeAttentionCase(const DecodeAttentionSpec& spec)
      : cache(spec.cache), spec_(spec), head_dim_(spec.cache.k_dim) {
    RandomData random(spec.cache.seed + 1000);
    const std::size_t n_rows = static_cast<std::size_t>(cache.n_sequences()) * n_heads();
    for (std::size_t i = 0; i < n_rows * head_dim_; ++i) {
      const float x = random.normal(spec.q_deviation);
      q_.push_back(spec.cache.format == KvFormat::bf16 ? to_bf16(x).bits : to_f16(x).bits);
    }
    if (spec.sink_logits) {
      sink_logits_ = random.normals(n_heads());
    }
  }

  KvCacheData cache;  ///< plant keys here before anything is asked

  [[nodiscard]] int n_heads() const { return spec_.cache.n_kv_heads * spec_.heads_per_kv_head; }
  /// The query as stored.
  [[nodiscard]] std::vector<float> query(int sequence, int head) const {
    std::vector<float> row;
    for (int i = 0; i < head_dim_; ++i) {
      const std::uint16_t bits =
          q_[(static_cast<std::size_t>(sequence) * n_heads() + head) * head_dim_ + i];
      row.push_back(spec_.cache.format == KvFormat::bf16 ? to_f32(Bf16{bits}) : to_f32(F16{bits}));
    }
    return row;
  }
  /// Gives `token` nearly all the weight of `head`: its scaled score is 40, those of others a few.
  void plant_dominant(int sequence, int head, int token) {
    const float scale = host_params().softmax_scale;
    cache.plant_dominant(
        sequence, head / spec_.heads_per_kv_head, token, query(sequence, head), 40.0F / scale);
  }

  [[nodiscard]] std::size_t out_size() const { return q_.size(); }
  /// With host buffers; `out` is the caller's to set.
  [[nodiscard]] DecodeAttentionParams host_params() const {
    return params(cache.host(), q_.data(), sink_logits_.data());
  }
  /// Uploads everything; `out` is the caller's to set.
  [[nodiscard]] DecodeAttentionParams device_params() {
    device_q_ = DeviceArray<std::uint16_t>(q_);
    device_sink_logits_ = DeviceArray<float>(sink_logits_);
    return params(cache.device(), device_q_.data(), device_sink_logits_.data());
  }

  struct Expected {
    std::vector<double> out, bound;
  };
  /// By the reference, and how far an implementation with these roundings may be off.
  [[nodiscard]] Expected expected(const Roundings& roundings) const {
    std::vector<double> weighted_abs_v(out_size());
    std::vector<double> scores(out_size() / head_dim_);
    std::vector<double> total_abs_v(out_size());
    Expected result{std::vector<double>(out_size()), std::vector<double>(out_size())};
    decode_attention_reference(
        host_params(),
        {result.out.data(), weighted_abs_v.data(), scores.data(), total_abs_v.data()});
    for (std::size_t i = 0; i < out_size(); ++i) {
      result.bound[i] = attention_bound(result.out[i],
                                        {weighted_abs_v[i], scores[i / head_dim_], total_abs_v[i]},
                                        std::max(1, cache.longest()),
                                        head_dim_,
                                        roundings);
    }
    return result;
  }

 private:
  [[nodiscard]] DecodeAttentionParams params(const KvCacheView& view,
                                             const std::uint16_t* q,
                                             const float* sink_logits) const {
    DecodeAttentionParams p;
    p.n_heads = n_heads();
    p.head_dim = head_dim_;
    p.cache = view;
    p.q = q;
    p.softmax_scale = 1.0F / std::sqrt(static_cast<float>(head_dim_));
    p.window_tokens = spec_.window_tokens;
    p.sink_tokens = spec_.sink_tokens;
    p.sink_logits = spec_.sink_logits ? sink_logits : nullptr;
    return p;
  }

  DecodeAttentionSpec spec_;
  int head_dim_;
  std::vector<std::uint16_t> q_;
  std::vector<float> sink_logits_;
  DeviceArray<std::uint16_t> device_q_;
  DeviceArray<float> device_sink_logits_;
};

}  // namespace kvfathom::kernels
