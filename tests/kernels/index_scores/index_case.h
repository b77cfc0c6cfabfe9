// Queries, weights and cached keys of an indexer, and the scores that they must give.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "kernels/common/tolerance.h"
#include "kernels/index_scores/index_scores.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/kv_cache_data.h"
#include "tests/kernels/support/where.h"

namespace kvfathom::kernels {

struct IndexCase {
  std::vector<int> lengths = {40};
  int n_heads = 64;
  int head_dim = 128;
  int page_tokens = 0;
  IndexKernel kernel = IndexKernel::automatic;
};

/// Keys in the layout of int8_token: rows of random E4M3, which are bytes too, and random scales.
inline KvCacheSpec index_keys_spec(const IndexCase& of) {
  KvCacheSpec spec;
  spec.format = KvFormat::int8_token;
  spec.k_dim = of.head_dim;
  spec.v_dim = 0;
  spec.lengths = of.lengths;
  spec.page_tokens = of.page_tokens;
  return spec;
}

/// By sequence and token, as the kernels' scores lie.
struct IndexExpected {
  std::vector<double> scores, bounds;
};

class IndexProblem {
 public:
  static constexpr float kUntouched = -777.0F;

  explicit IndexProblem(const IndexCase& of) : case_(of), keys_(index_keys_spec(of)) {
    RandomData random(41);
    const std::size_t n_queries = of.lengths.size() * static_cast<std::size_t>(of.n_heads);
    for (std::size_t i = 0; i < n_queries * of.head_dim; ++i) {
      q_.push_back(to_fp8_e4m3(random.normal(2.0F)));
    }
    weights_ = random.normals(n_queries);
    max_tokens_ = keys_.longest() + 1;
    make_finite();
  }

  [[nodiscard]] const std::vector<int>& lengths() const { return case_.lengths; }
  [[nodiscard]] int max_tokens() const { return max_tokens_; }

  [[nodiscard]] IndexScoresParams host() const {
    IndexScoresParams p;
    p.n_heads = case_.n_heads;
    p.head_dim = case_.head_dim;
    p.keys = keys_.host();
    p.q = q_.data();
    p.weights = weights_.data();
    p.max_tokens = max_tokens_;
    return p;
  }
  [[nodiscard]] IndexScoresParams device() {
    device_q_ = DeviceArray<Fp8E4m3>(q_);
    device_weights_ = DeviceArray<float>(weights_);
    IndexScoresParams p = host();
    p.keys = keys_.device();
    p.q = device_q_.data();
    p.weights = device_weights_.data();
    return p;
  }
  /// Beyond a length: kUntouched.
  [[nodiscard]] IndexExpected expected() const {
    const std::size_t n = case_.lengths.size() * static_cast<std::size_t>(max_tokens_);
    IndexExpected want{std::vector<double>(n, kUntouched), {}};
    std::vector<double> magnitudes(n, 0.0);
    index_scores_reference(host(), {want.scores.data(), magnitudes.data()});
    for (std::size_t i = 0; i < n; ++i) {
      want.bounds.push_back(
          dot_bound(want.scores[i], magnitudes[i], case_.head_dim + case_.n_heads));
    }
    return want;
  }

  using Mutate = std::function<void(IndexScoresParams&)>;
  Comparison run(Where where, const Mutate& mutate = {}) {
    const IndexExpected want = expected();
    std::vector<float> got(want.scores.size(), kUntouched);
    if (where == Where::cpu) {
      IndexScoresParams p = host();
      p.scores = got.data();
      if (mutate) {
        mutate(p);
      }
      index_scores_cpu(p, 2);
    } else {
      const DeviceArray<float> scores(got);
      IndexScoresParams p = device();
      p.scores = scores.data();
      if (mutate) {
        mutate(p);
      }
      index_scores_launch(p, nullptr, case_.kernel);
      synchronize();
      got = scores.to_host();
    }
    return compare<float>(got, want.scores, want.bounds);
  }

 private:
  /// Bytes of an int8 row that are a NaN as E4M3 would make every score one.
  void make_finite() {
    const KvCacheView keys = keys_.host();
    for (int sequence = 0; sequence < keys_.n_sequences(); ++sequence) {
      for (int token = 0; token < keys_.length(sequence, 0); ++token) {
        const KvSlot at = slot_of(keys, sequence, token);
        auto* row = const_cast<std::byte*>(row_data(keys.k, at, 0));  // keys_ is ours
        for (int i = 0; i < case_.head_dim; ++i) {
          if ((row[i] & std::byte{0x7f}) == std::byte{0x7f}) {
            row[i] ^= std::byte{0x1};
          }
        }
      }
    }
  }

  IndexCase case_;
  KvCacheData keys_;
  std::vector<Fp8E4m3> q_;
  std::vector<float> weights_;
  int max_tokens_ = 0;
  DeviceArray<Fp8E4m3> device_q_;
  DeviceArray<float> device_weights_;
};

}  // namespace kvfathom::kernels
