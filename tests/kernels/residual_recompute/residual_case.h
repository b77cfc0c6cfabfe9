// X, weights, and an empty cache whose rows are to be recomputed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numbers>
#include <numeric>
#include <vector>

#include "kernels/common/tolerance.h"
#include "kernels/residual_recompute/residual_recompute.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/kv_cache_data.h"
#include "tests/kernels/support/where.h"

namespace kvfathom::kernels {

struct ResidualCase {
  int n_tokens = 5;
  int n_columns = 64;
  int n_kv_heads = 2;
  int head_dim = 32;
  RowFormat rows = RowFormat::bf16;
  int bits = 0;
  GroupAxis axis = GroupAxis::channels;
  bool separate_v = false;
  bool norm = true;
  bool k_norm = false;
  int rotary_dim = 0;
  KvFormat format = KvFormat::f16;
  int page_tokens = 0;
  int chunk_tokens = 1024;
  float deviation = 1.0F;
};

/// ResidualRows of X in host memory, and on the device once asked for.
class ResidualRows {
 public:
  ResidualRows(const ResidualCase& of, std::uint64_t seed) {
    RandomData random(seed);
    const std::size_t n = static_cast<std::size_t>(of.n_tokens) * of.n_columns;
    view_ =
        StoredRows{.format = of.rows, .n_columns = of.n_columns, .bits = of.bits, .axis = of.axis};
    if (of.rows == RowFormat::bf16) {
      bf16_ = random.bf16_normals(n, of.deviation);
      view_.data = bf16_.data();
    } else {
      encoded_ = encode_rows(view_, random.normals(n, of.deviation));
      view_ = encoded_.view(view_);
    }
  }
  ResidualRows(const ResidualRows&) = delete;
  ResidualRows& operator=(const ResidualRows&) = delete;

  const StoredRows& host() const { return view_; }
  StoredRows device() {
    device_bf16_ = DeviceArray<Bf16>(bf16_);
    device_words_ = DeviceArray<std::uint32_t>(encoded_.words);
    device_steps_ = DeviceArray<F16>(encoded_.steps);
    device_minima_ = DeviceArray<F16>(encoded_.minima);
    StoredRows rows = view_;
    rows.data = view_.format == RowFormat::bf16 ? static_cast<const void*>(device_bf16_.data())
                                                : device_words_.data();
    rows.steps = device_steps_.data();
    rows.minima = device_minima_.data();
    return rows;
  }

 private:
  StoredRows view_;
  std::vector<Bf16> bf16_;
  EncodedRows encoded_;
  DeviceArray<Bf16> device_bf16_;
  DeviceArray<std::uint32_t> device_words_;
  DeviceArray<F16> device_steps_, device_minima_;
};

/// X, weights, and an empty cache that takes token t at slot t.
class ResidualProblem {
 public:
  explicit ResidualProblem(const ResidualCase& of)
      : case_(of),
        cache_({.format = of.format,
                .n_kv_heads = of.n_kv_heads,
                .k_dim = of.head_dim,
                .v_dim = of.head_dim,
                .lengths = {of.n_tokens},
                .page_tokens = of.page_tokens}),
        x_(of, 11),
        x_v_(of, 12) {
    RandomData random(7);
    const int width = of.n_kv_heads * of.head_dim;
    const float deviation = 1.0F / std::sqrt(static_cast<float>(of.n_columns));
    // A row more than is read, so that a mutant can start a row late.
    weights_ = random.bf16_normals((2UL * width + 1) * of.n_columns, deviation);
    norm_weight_ = random.bf16_normals(of.n_columns);
    k_norm_weight_ = random.bf16_normals(of.head_dim);
    sequences_.assign(of.n_tokens, 0);
    slots_.resize(of.n_tokens);
    std::iota(slots_.begin(), slots_.end(), 0);
    for (int token = 0; token < of.n_tokens; ++token) {
      positions_.push_back(1000 + token);
    }
    turns_ = rope_turns_per_position(of.rotary_dim, 10000.0);
  }

  ResidualRecomputeParams host(const KvCacheView& cache) const {
    ResidualRecomputeParams p;
    p.x = x_.host();
    p.x_v = case_.separate_v ? x_v_.host() : StoredRows{};
    p.norm_weight = case_.norm ? norm_weight_.data() : nullptr;
    p.weights = weights_.data();
    p.k_norm_weight = case_.k_norm ? k_norm_weight_.data() : nullptr;
    p.chunk_tokens = case_.chunk_tokens;
    p.to = {.n_tokens = case_.n_tokens,
            .head_dim = case_.head_dim,
            .cache = cache,
            .rope = {case_.rotary_dim, RopeStyle::halves, turns_.data()},
            .sequences = sequences_.data(),
            .slots = slots_.data(),
            .positions = positions_.data()};
    return p;
  }

  using Mutate = std::function<void(ResidualRecomputeParams&)>;

  void run(Where where, const Mutate& mutate = {}) {
    if (where == Where::cpu) {
      ResidualRecomputeParams p = host(cache_.host());
      if (mutate) {
        mutate(p);
      }
      residual_recompute_cpu(p, 2);
      return;
    }
    ResidualRecomputeParams p = host(cache_.device());
    const DeviceArray<Bf16> weights(weights_);
    const DeviceArray<Bf16> norm_weight(norm_weight_);
    const DeviceArray<Bf16> k_norm_weight(k_norm_weight_);
    const DeviceArray<std::int32_t> sequences(sequences_);
    const DeviceArray<std::int32_t> slots(slots_);
    const DeviceArray<std::int32_t> positions(positions_);
    const DeviceArray<std::uint64_t> turns(turns_);
    p.x = x_.device();
    p.x_v = case_.separate_v ? x_v_.device() : StoredRows{};
    p.weights = weights.data();
    p.norm_weight = case_.norm ? norm_weight.data() : nullptr;
    p.k_norm_weight = case_.k_norm ? k_norm_weight.data() : nullptr;
    p.to.rope.turns_per_position = turns.data();
    p.to.sequences = sequences.data();
    p.to.slots = slots.data();
    p.to.positions = positions.data();
    if (mutate) {
      mutate(p);
    }
    const DeviceArray<std::byte> scratch(residual_recompute_scratch_bytes(p));
    residual_recompute_launch(p, scratch.data());
    synchronize();
    cache_.download();
  }

  /// The cache against the reference.
  Comparison compare_with_reference(Where where) const {
    const int width = case_.n_kv_heads * case_.head_dim;
    const std::size_t n = static_cast<std::size_t>(case_.n_tokens) * width;
    std::vector<double> k(n), v(n), k_magnitude(n), v_magnitude(n);
    residual_recompute_reference(host(cache_.host()),
                                 {k.data(), v.data(), k_magnitude.data(), v_magnitude.data()});
    std::vector<double> got, want, bound;
    for (int token = 0; token < case_.n_tokens; ++token) {
      for (int head = 0; head < case_.n_kv_heads; ++head) {
        const std::size_t row = static_cast<std::size_t>(token) * width + head * case_.head_dim;
        append(where, cache_.value(0, head, token), &v[row], &v_magnitude[row], got, want, bound);
        rotate(&k[row], &k_magnitude[row], token);
        append(where, cache_.key(0, head, token), &k[row], &k_magnitude[row], got, want, bound);
      }
    }
    return compare<double>(got, want, bound);
  }

 private:
  void rotate(double* k, double* magnitude, int token) const {
    const int half = case_.rotary_dim / 2;
    for (int i = 0; i < half; ++i) {
      const double turns = static_cast<double>(turns_[i]) * 0x1p-64 * positions_[token];
      const double angle = 2.0 * std::numbers::pi * (turns - std::floor(turns));
      const double x = k[i];
      const double y = k[i + half];
      k[i] = x * std::cos(angle) - y * std::sin(angle);
      k[i + half] = x * std::sin(angle) + y * std::cos(angle);
      magnitude[i] = magnitude[i + half] = magnitude[i] + magnitude[i + half];
    }
  }

  /// The device rounds to Bf16 the normalised row, each product and each normed key; the CPU keeps
  /// floats. Then the cache's own format rounds.
  void append(Where where,
              const std::vector<double>& stored,
              const double* reference,
              const double* magnitude,
              std::vector<double>& got,
              std::vector<double>& want,
              std::vector<double>& bound) const {
    const double bf16 = where == Where::device ? kUnitRoundoffBf16 : 0.0;
    const double largest =
        std::fabs(*std::max_element(reference, reference + case_.head_dim, [](double a, double b) {
          return std::fabs(a) < std::fabs(b);
        }));
    for (int i = 0; i < case_.head_dim; ++i) {
      got.push_back(stored[i]);
      want.push_back(reference[i]);
      const double computed =
          dot_bound(reference[i], magnitude[i], 2L * case_.n_columns, {.operands = 3.0 * bf16});
      const double rotated = rope_bound(magnitude[i]);
      const double reach = largest + 2.0 * computed;
      bound.push_back(
          computed + rotated +
          storage_bound(case_.format, {std::fabs(reference[i]) + computed, reach, reach}));
    }
  }

  ResidualCase case_;
  KvCacheData cache_;
  ResidualRows x_, x_v_;
  std::vector<Bf16> weights_, norm_weight_, k_norm_weight_;
  std::vector<std::int32_t> sequences_, slots_, positions_;
  std::vector<std::uint64_t> turns_;
};

}  // namespace kvfathom::kernels
