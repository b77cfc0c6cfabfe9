// A cache of keys, a projector that makes values of them, and what attention over both must give.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/common/tolerance.h"
#include "kernels/value_reconstruction/value_reconstruction.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/kv_cache_data.h"

namespace kvfathom::kernels {

struct ValueShape {
  KvFormat format = KvFormat::bf16;
  int n_heads = 2, n_kv_heads = 2, head_dim = 32;
  std::vector<int> lengths = {20};
  bool rotated = true;
  int page_tokens = 0;
  int n_splits = 1;
};

/// A cache of keys, a projector and queries; the outputs start as NaN.
struct ValueCase {
  explicit ValueCase(const ValueShape& s)
      : shape(s),
        cache(KvCacheSpec{.format = s.format,
                          .n_kv_heads = s.n_kv_heads,
                          .k_dim = s.head_dim,
                          .v_dim = 0,
                          .lengths = s.lengths,
                          .page_tokens = s.page_tokens,
                          .seed = 11}) {
    RandomData random(5);
    const int width = s.n_kv_heads * s.head_dim;
    for (int i = 0; i < width * width; ++i) {
      projector.push_back(element(random.normal(1.0F / std::sqrt(static_cast<float>(width)))));
    }
    for (int i = 0; i < cache.n_sequences() * s.n_heads * s.head_dim; ++i) {
      q.push_back(element(random.normal()));
    }
    if (s.rotated) {
      cos_sin = rotation_cos_sin(s.head_dim, 100.0, cache.longest() + 1);
    }
  }
  [[nodiscard]] std::uint16_t element(float value) const {
    return shape.format == KvFormat::bf16 ? to_bf16(value).bits : to_f16(value).bits;
  }
  [[nodiscard]] float number(std::uint16_t bits) const {
    return shape.format == KvFormat::bf16 ? to_f32(Bf16{bits}) : to_f32(F16{bits});
  }
  /// Makes a token of KV head 0 take all the weight of query head 0, at this score.
  void plant(int token, float score) {
    std::vector<float> query(static_cast<std::size_t>(shape.head_dim));
    for (std::size_t d = 0; d < query.size(); ++d) {
      query[d] = number(q[d]);
    }
    cache.plant_dominant(0, 0, token, query, score);
  }
  static std::vector<std::uint16_t> with_spare(std::vector<std::uint16_t> values, int n) {
    values.resize(values.size() + static_cast<std::size_t>(n), 0x3c00);
    return values;
  }
  [[nodiscard]] int width() const { return shape.n_kv_heads * shape.head_dim; }
  [[nodiscard]] int capacity() const { return cache.longest() + 1; }
  [[nodiscard]] double roundoff() const {
    return shape.format == KvFormat::bf16 ? kUnitRoundoffBf16 : kUnitRoundoffF16;
  }
  [[nodiscard]] ValueReconstructionParams shapes() const {
    ValueReconstructionParams p;
    p.n_heads = shape.n_heads;
    p.head_dim = shape.head_dim;
    p.softmax_scale = 1.0F / std::sqrt(static_cast<float>(shape.head_dim));
    p.token_capacity = capacity();
    return p;
  }
  [[nodiscard]] ValueReconstructionParams host() {
    ValueReconstructionParams p = shapes();
    p.cache = cache.host();
    p.cos_sin = shape.rotated ? cos_sin.data() : nullptr;
    p.projector = projector.data();
    p.q = q.data();
    p.out = out.data();
    p.values = values.data();
    return p;
  }
  void poison() {
    out.assign(q.size(), NAN);
    values.assign(static_cast<std::size_t>(cache.n_sequences()) * capacity() * width(), 0x7fff);
  }
  void run_cpu(int n_threads) {
    poison();
    value_decode_cpu(host(), n_threads);
    value_rows_cpu(host(), n_threads);
  }
  /// `mutate` may falsify the arguments; the reference never sees that.
  template <typename Mutate>
  void run_device(const Mutate& mutate, bool rows = true, bool decode = true) {
    poison();
    // A spare row each, so that a test may shift where they begin.
    const DeviceArray<std::uint16_t> d_projector(with_spare(projector, width())),
        d_q(with_spare(q, shape.head_dim)), d_values(values);
    const DeviceArray<float> d_cos_sin(cos_sin), d_out(out);
    ValueReconstructionParams p = shapes();
    p.cache = cache.device();
    p.cos_sin = shape.rotated ? d_cos_sin.data() : nullptr;
    p.projector = d_projector.data();
    p.q = d_q.data();
    p.out = d_out.data();
    p.values = d_values.data();
    const int longest = cache.longest();
    const DeviceArray<std::byte> scratch(
        static_cast<std::size_t>(value_decode_scratch_bytes(p, longest, shape.n_splits)));
    mutate(p);
    if (decode) {
      value_decode_launch(p, longest, shape.n_splits, scratch.data(), nullptr);
    }
    if (rows) {
      value_rows_launch(p, longest, nullptr);
    }
    synchronize();
    out = d_out.to_host();
    values = d_values.to_host();
  }
  void run_device() {
    run_device([](ValueReconstructionParams&) {});
  }

  /// `converts`: the weights and the keys that were turned back are rounded to 16 bits.
  [[nodiscard]] testing::AssertionResult decode_is_right(bool converts) {
    std::vector<double> want(out.size());
    std::vector<double> weighted(out.size());
    std::vector<double> score(out.size() / shape.head_dim);
    value_decode_reference(host(), {want.data(), weighted.data(), score.data()});
    Roundings u;
    u.probabilities = converts ? roundoff() * (shape.rotated ? 2.0 : 1.0) : 0.0;
    std::vector<double> bounds(out.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      const int sequence = static_cast<int>(i) / (shape.n_heads * shape.head_dim);
      const AttentionMagnitudes m{weighted[i], score[i / shape.head_dim]};
      bounds[i] = attention_bound(want[i], m, cache.length(sequence, 0), width(), u);
    }
    return close_to<float>(out, want, bounds);
  }
  [[nodiscard]] testing::AssertionResult rows_are_right(bool converts) {
    std::vector<double> want(values.size(), NAN);
    std::vector<double> magnitude(values.size(), 0.0);
    value_rows_reference(host(), {want.data(), magnitude.data()});
    Roundings u;
    u.output = roundoff();
    u.operands = converts && shape.rotated ? roundoff() : 0.0;
    std::vector<float> got(values.size());
    std::vector<double> bounds(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      got[i] = number(values[i]);  // beyond a length: still the NaN it was
      // What is rounded to 16 bits is the float sum, which may be off by the rest of the bound.
      bounds[i] = dot_bound(want[i], magnitude[i], width(), u) * (1.0 + u.output);
    }
    return close_to<float>(got, want, bounds);
  }

  ValueShape shape;
  KvCacheData cache;
  std::vector<std::uint16_t> projector, q, values;
  std::vector<float> cos_sin, out;
};

}  // namespace kvfathom::kernels
