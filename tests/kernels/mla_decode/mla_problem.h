// Random caches and queries for MLA decode, on the host and on the device, and what is right.
#pragma once

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/common/tolerance.h"
#include "kernels/mla_decode/mla_decode.h"
#include "kernels/mla_decode/mla_fp8_row.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/random_data.h"

namespace kvfathom::kernels {

struct MlaCase {
  int n_heads = 1;
  int kv_lora_rank = 256;
  int qk_rope_head_dim = 32;
  KvFormat format = KvFormat::bf16;
  bool separate_v = false;
  std::vector<std::int32_t> lengths = {1};
  int log2_page_tokens = -1;     ///< negative: contiguous
  float score_deviation = 1.0F;  ///< of the scaled scores of random rows

  [[nodiscard]] int k_dim() const { return kv_lora_rank + qk_rope_head_dim; }
  [[nodiscard]] int longest() const { return *std::max_element(lengths.begin(), lengths.end()); }
};

/// A case with its data. Slots beyond a sequence's end, and pages of nobody, hold NaN.
class MlaProblem {
 public:
  explicit MlaProblem(const MlaCase& shape, std::uint64_t seed = 1) : shape_(shape), random_(seed) {
    const int n_sequences = static_cast<int>(shape.lengths.size());
    q_ =
        random_.bf16_normals(static_cast<std::size_t>(n_sequences) * shape.n_heads * shape.k_dim());
    page_tokens_ = shape.log2_page_tokens >= 0 ? 1 << shape.log2_page_tokens
                                               : std::max(1, shape.longest() + 2);
    pages_per_sequence_ = shape.log2_page_tokens >= 0 ? shape.longest() / page_tokens_ + 1 : 1;
    const int n_pages = n_sequences * pages_per_sequence_ + 1;
    table_.resize(static_cast<std::size_t>(n_sequences) * pages_per_sequence_);
    std::iota(table_.begin(), table_.end(), 0);
    if (shape.log2_page_tokens >= 0) {
      std::shuffle(table_.begin(), table_.end(), random_.engine());
    }
    k_row_bytes_ = shape.format == KvFormat::fp8_e4m3 ? kMlaFp8RowBytes : 2 * shape.k_dim();
    v_row_bytes_ = shape.separate_v ? 2 * shape.kv_lora_rank : 0;
    k_.assign(static_cast<std::size_t>(n_pages) * page_tokens_ * k_row_bytes_, kNanByte);
    v_.assign(static_cast<std::size_t>(n_pages) * page_tokens_ * v_row_bytes_, kNanByte);
    for (int sequence = 0; sequence < n_sequences; ++sequence) {
      for (int token = 0; token < shape.lengths[sequence]; ++token) {
        set_k(sequence, token, random_.normals(shape.k_dim(), shape.score_deviation));
        if (shape.separate_v) {
          set_v(sequence, token, random_.normals(shape.kv_lora_rank));
        }
      }
    }
  }

  void set_k(int sequence, int token, const std::vector<float>& values) {
    const std::vector<std::byte> row = shape_.format == KvFormat::fp8_e4m3
                                           ? encode_mla_fp8_row(values)
                                           : encode_row(KvFormat::bf16, values).data;
    std::copy(row.begin(), row.end(), k_.begin() + slot(sequence, token) * k_row_bytes_);
  }
  void set_v(int sequence, int token, const std::vector<float>& values) {
    const std::vector<std::byte> row = encode_row(KvFormat::bf16, values).data;
    std::copy(row.begin(), row.end(), v_.begin() + slot(sequence, token) * v_row_bytes_);
  }
  /// Gives `token` the direction of a head's query: that head sees little else.
  void plant(int sequence, int head, int token) {
    std::vector<float> row(shape_.k_dim());
    const std::size_t first =
        (static_cast<std::size_t>(sequence) * shape_.n_heads + head) * shape_.k_dim();
    for (std::size_t i = 0; i < row.size(); ++i) {
      row[i] = to_f32(q_[first + i]);
    }
    set_k(sequence, token, row);
  }
  void set_q(float value) { std::fill(q_.begin(), q_.end(), to_bf16(value)); }

  [[nodiscard]] const MlaCase& shape() const { return shape_; }
  [[nodiscard]] std::size_t n_outputs() const {
    return shape_.lengths.size() * shape_.n_heads * shape_.kv_lora_rank;
  }
  /// On the host, without an output buffer.
  [[nodiscard]] MlaDecodeParams host() const {
    return params(q_.data(), k_.data(), v_.data(), table_.data(), shape_.lengths.data());
  }

  [[nodiscard]] std::vector<float> on_cpu(int n_threads = 1) const {
    std::vector<float> out(n_outputs(), NAN);
    MlaDecodeParams p = host();
    p.out = out.data();
    mla_decode_cpu(p, n_threads);
    return out;
  }

  /// What a test may change between the plan and the launch.
  struct Mutation {
    int lengths_less = 0;
    float scale_factor = 1.0F;
    int q_shift = 0;  ///< elements
    bool v_from_k = false;
  };
  [[nodiscard]] std::vector<float> on_device(const MlaDecodePlan& plan, const Mutation& m) const {
    std::vector<std::int32_t> lengths = shape_.lengths;
    for (std::int32_t& length : lengths) {
      length = std::max(0, length - m.lengths_less);
    }
    const DeviceArray<Bf16> q(q_);
    const DeviceArray<std::byte> k(k_);
    const DeviceArray<std::byte> v(v_);
    const DeviceArray<std::int32_t> table(table_);
    const DeviceArray<std::int32_t> device_lengths(lengths);
    const DeviceArray<float> out(std::vector<float>(n_outputs(), NAN));
    MlaDecodeParams p =
        params(q.data() + m.q_shift, k.data(), v.data(), table.data(), device_lengths.data());
    p.softmax_scale *= m.scale_factor;
    p.out = out.data();
    if (m.v_from_k) {
      p.cache.v = p.cache.k;
    }
    const std::size_t n_states =
        static_cast<std::size_t>(mla_decode_scratch_bytes(p, plan.n_splits)) / sizeof(float);
    const DeviceArray<float> scratch(std::vector<float>(n_states, NAN));
    mla_decode_launch(p, plan, scratch.data(), nullptr);
    synchronize();
    return out.to_host();
  }
  [[nodiscard]] std::vector<float> on_device(const MlaDecodePlan& plan) const {
    return on_device(plan, Mutation{});
  }

  [[nodiscard]] MlaDecodePlan plan(MlaDecodeKernel kernel = MlaDecodeKernel::automatic,
                                   int n_splits = 0) const {
    MlaDecodePlan plan = mla_decode_plan(host(), shape_.longest(), device(), kernel);
    plan.n_splits = n_splits > 0 ? n_splits : plan.n_splits;
    return plan;
  }

  /// Against the reference, within what the kernel's own roundings allow.
  [[nodiscard]] Comparison against_reference(const std::vector<float>& got,
                                             const Roundings& roundings) const {
    static_cast<void>(reference());
    std::vector<double> bounds(n_outputs());
    for (std::size_t i = 0; i < bounds.size(); ++i) {
      const std::size_t row = i / shape_.kv_lora_rank;
      bounds[i] = attention_bound(want_[i],
                                  {.weighted_v = weighted_abs_v_[i], .score = scores_[row]},
                                  shape_.lengths[row / shape_.n_heads],
                                  shape_.k_dim(),
                                  roundings);
    }
    return compare<float>(got, want_, bounds);
  }
  [[nodiscard]] const std::vector<double>& reference() const {
    if (want_.empty()) {
      want_.resize(n_outputs());
      weighted_abs_v_.resize(n_outputs());
      scores_.resize(shape_.lengths.size() * shape_.n_heads);
      mla_decode_reference(host(), {want_.data(), weighted_abs_v_.data(), scores_.data()});
    }
    return want_;
  }
  void forget_reference() { want_.clear(); }

  [[nodiscard]] float softmax_scale() const {
    return 1.0F / std::sqrt(static_cast<float>(shape_.k_dim()));
  }

 private:
  static constexpr auto kNanByte = std::byte{0xff};

  [[nodiscard]] std::size_t slot(int sequence, int token) const {
    const std::int32_t page =
        table_[static_cast<std::size_t>(sequence) * pages_per_sequence_ + token / page_tokens_];
    return static_cast<std::size_t>(page) * page_tokens_ + token % page_tokens_;
  }
  [[nodiscard]] MlaDecodeParams params(const Bf16* q,
                                       const std::byte* k,
                                       const std::byte* v,
                                       const std::int32_t* table,
                                       const std::int32_t* lengths) const {
    MlaDecodeParams p;
    p.n_heads = shape_.n_heads;
    p.kv_lora_rank = shape_.kv_lora_rank;
    p.qk_rope_head_dim = shape_.qk_rope_head_dim;
    p.softmax_scale = softmax_scale();
    p.q = reinterpret_cast<const std::uint16_t*>(q);
    p.cache.format = shape_.format;
    p.cache.n_sequences = static_cast<int>(shape_.lengths.size());
    p.cache.n_kv_heads = 1;
    p.cache.k = {.data = k,
                 .page_stride_bytes = page_tokens_ * k_row_bytes_,
                 .token_stride_bytes = k_row_bytes_};
    if (shape_.separate_v) {
      p.cache.v = {.data = v,
                   .page_stride_bytes = page_tokens_ * v_row_bytes_,
                   .token_stride_bytes = v_row_bytes_};
    }
    if (shape_.log2_page_tokens >= 0) {
      p.cache.page_table = table;
      p.cache.pages_per_sequence = pages_per_sequence_;
      p.cache.log2_page_tokens = shape_.log2_page_tokens;
    }
    p.cache.lengths = lengths;
    return p;
  }

  MlaCase shape_;
  RandomData random_;
  int page_tokens_ = 1;
  int pages_per_sequence_ = 1;
  std::int64_t k_row_bytes_ = 0;
  std::int64_t v_row_bytes_ = 0;
  std::vector<Bf16> q_;
  std::vector<std::byte> k_;
  std::vector<std::byte> v_;
  std::vector<std::int32_t> table_;
  mutable std::vector<double> want_, weighted_abs_v_, scores_;
};

}  // namespace kvfathom::kernels
