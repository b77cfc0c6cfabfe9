#include "kernels/index_scores/index_scores.h"

#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/common/tolerance.h"
#include "kernels/eviction_scores/select_tokens.h"
#include "model/ops/index_scores.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/kv_cache_data.h"
#include "tests/kernels/support/schedules.h"

namespace kvfathom::kernels {
namespace {

enum class Where { cpu, device };

struct Case {
  std::vector<int> lengths = {40};
  int n_heads = 64;
  int head_dim = 128;
  int page_tokens = 0;
  IndexKernel kernel = IndexKernel::automatic;
};

/// Keys in the layout of int8_token: rows of random E4M3, which are bytes too, and random scales.
KvCacheSpec keys_spec(const Case& of) {
  KvCacheSpec spec;
  spec.format = KvFormat::int8_token;
  spec.k_dim = of.head_dim;
  spec.v_dim = 0;
  spec.lengths = of.lengths;
  spec.page_tokens = of.page_tokens;
  return spec;
}

class Problem {
 public:
  explicit Problem(const Case& of) : case_(of), keys_(keys_spec(of)) {
    RandomData random(41);
    const std::size_t n_queries = of.lengths.size() * static_cast<std::size_t>(of.n_heads);
    for (std::size_t i = 0; i < n_queries * of.head_dim; ++i) {
      q_.push_back(to_fp8_e4m3(random.normal(2.0F)));
    }
    weights_ = random.normals(n_queries);
    max_tokens_ = keys_.longest() + 1;
  }

  using Mutate = std::function<void(IndexScoresParams&)>;
  Comparison run(Where where, const Mutate& mutate = {}) {
    const std::size_t n = case_.lengths.size() * static_cast<std::size_t>(max_tokens_);
    std::vector<float> got(n, kUntouched);
    IndexScoresParams p = params(keys_.host());
    // Bytes of an int8 row that are a NaN as E4M3 would make every score one.
    make_finite(p);
    std::vector<double> want(n, kUntouched);
    std::vector<double> magnitudes(n, 0.0);
    index_scores_reference(p, {want.data(), magnitudes.data()});
    if (where == Where::cpu) {
      p.scores = got.data();
      if (mutate) {
        mutate(p);
      }
      index_scores_cpu(p, 2);
    } else {
      const DeviceArray<Fp8E4m3> q(q_);
      const DeviceArray<float> weights(weights_);
      const DeviceArray<float> scores(got);
      p = params(keys_.device());
      p.q = q.data();
      p.weights = weights.data();
      p.scores = scores.data();
      if (mutate) {
        mutate(p);
      }
      index_scores_launch(p, nullptr, case_.kernel);
      synchronize();
      got = scores.to_host();
    }
    std::vector<double> bound;
    for (std::size_t i = 0; i < n; ++i) {
      bound.push_back(dot_bound(want[i], magnitudes[i], case_.head_dim + case_.n_heads));
    }
    return compare<float>(got, want, bound);
  }

 private:
  static constexpr float kUntouched = -777.0F;

  IndexScoresParams params(const KvCacheView& view) const {
    IndexScoresParams p;
    p.n_heads = case_.n_heads;
    p.head_dim = case_.head_dim;
    p.keys = view;
    p.q = q_.data();
    p.weights = weights_.data();
    p.max_tokens = max_tokens_;
    return p;
  }
  void make_finite(const IndexScoresParams& p) {
    for (int sequence = 0; sequence < keys_.n_sequences(); ++sequence) {
      for (int token = 0; token < keys_.length(sequence, 0); ++token) {
        const KvSlot at = slot_of(p.keys, sequence, token);
        auto* row = const_cast<std::byte*>(row_data(p.keys.k, at, 0));  // keys_ is ours
        for (int i = 0; i < case_.head_dim; ++i) {
          if ((row[i] & std::byte{0x7f}) == std::byte{0x7f}) {
            row[i] ^= std::byte{0x1};
          }
        }
      }
    }
  }

  Case case_;
  KvCacheData keys_;
  std::vector<Fp8E4m3> q_;
  std::vector<float> weights_;
  int max_tokens_ = 0;
};

std::vector<Case> all_cases() {
  return {
      {.lengths = {0, 1, 7, 8, 9}},
      {.lengths = {127, 128, 129, 31, 32, 33}, .page_tokens = 16},
      {.lengths = {300, 5}, .n_heads = 32, .page_tokens = 64},
      {.lengths = {33}, .n_heads = 16},
      {.lengths = {65, 2}, .n_heads = 11, .head_dim = 96},
      {.lengths = {34}, .n_heads = 4, .head_dim = 256},
      {.lengths = {70, 31}, .n_heads = 64, .page_tokens = 8, .kernel = IndexKernel::cuda_cores}};
}

TEST(IndexScoresCpu, IsRight) {
  int index = 0;
  for (const Case& of : all_cases()) {
    EXPECT_TRUE(within(Problem(of).run(Where::cpu))) << index++;
  }
}
TEST(IndexScores, IsRight) {
  SKIP_WITHOUT_DEVICE();
  int index = 0;
  for (const Case& of : all_cases()) {
    EXPECT_TRUE(within(Problem(of).run(Where::device))) << index++;
  }
}

// q = k = ones in one of two heads, minus ones in the other: ReLU keeps the first alone.
TEST(IndexScoresReference, NegativeProductsCountNothing) {
  std::vector<Fp8E4m3> q(64, to_fp8_e4m3(1.0F));
  std::fill(q.begin() + 32, q.end(), to_fp8_e4m3(-1.0F));
  const std::vector<Fp8E4m3> key(32, to_fp8_e4m3(1.0F));
  const float scale = 0.5F;
  const std::vector<float> weights = {3.0F, 5.0F};
  const std::int32_t length = 1;
  IndexScoresParams p;
  p.n_heads = 2;
  p.head_dim = 32;
  p.keys.n_sequences = p.keys.n_kv_heads = 1;
  p.keys.k.data = reinterpret_cast<const std::byte*>(key.data());
  p.keys.k.scales = reinterpret_cast<const std::byte*>(&scale);
  p.keys.lengths = &length;
  p.q = q.data();
  p.weights = weights.data();
  p.max_tokens = 1;
  double score = 0.0;
  double magnitude = 0.0;
  index_scores_reference(p, {&score, &magnitude});
  EXPECT_EQ(score, 3.0 * 32.0 * 0.5);
  EXPECT_EQ(magnitude, 8.0 * 32.0 * 0.5);
}

TEST(IndexScores, WrongArgumentsShow) {
  SKIP_WITHOUT_DEVICE();
  const std::vector<std::int32_t> shorter = {32, 69};
  const DeviceArray<std::int32_t> device_shorter(shorter);
  for (const IndexKernel kernel : {IndexKernel::tensor_cores, IndexKernel::cuda_cores}) {
    for (const auto& mutate : std::vector<Problem::Mutate>{
             [](IndexScoresParams& p) { p.n_heads = 32; },
             [](IndexScoresParams& p) {
               p.weights = reinterpret_cast<const float*>(p.keys.k.scales);
             },
             [](IndexScoresParams& p) { p.keys.k.scale_token_stride_bytes = 0; },
             [](IndexScoresParams& p) { p.keys.k.page_stride_bytes = 0; },
             [&](IndexScoresParams& p) { p.keys.lengths = device_shorter.data(); }}) {
      Problem problem({.lengths = {33, 140}, .kernel = kernel});
      EXPECT_FALSE(problem.run(Where::device, mutate).holds());
    }
  }
}

TEST(IndexScoresSmall, EveryScheduleGivesTheSame) {
  SKIP_WITHOUT_DEVICE();
  under_every_schedule([] {
    EXPECT_TRUE(within(Problem({.lengths = {20}, .n_heads = 16}).run(Where::device)));
    EXPECT_TRUE(
        within(Problem({.lengths = {20}, .n_heads = 9, .head_dim = 32}).run(Where::device)));
  });
}
TEST(IndexScoresSmall, EverySyncMatters) {
  SKIP_WITHOUT_DEVICE();
  expect_every_sync_matters(
      [] { return Problem({.lengths = {20}, .n_heads = 16}).run(Where::device).holds(); });
  expect_every_sync_matters([] {
    return Problem({.lengths = {20}, .n_heads = 17, .head_dim = 32}).run(Where::device).holds();
  });
}

// Below sm_75 nothing has f16 operands; the emulated device stands in for such a card.
TEST(IndexScores, FallsBackToCudaCores) {
  SKIP_WITHOUT_DEVICE();
  if (!device().emulated) {
    GTEST_SKIP() << "a real device cannot be another";
  }
  DeviceInfo old = device();
  old.compute_capability = 70;
  simt::set_emulated_device(old);
  EXPECT_TRUE(within(Problem({.lengths = {40}}).run(Where::device)));
  EXPECT_THROW(Problem({.lengths = {40}, .kernel = IndexKernel::tensor_cores}).run(Where::device),
               UnsupportedShape);
  simt::set_emulated_device({});
  EXPECT_THROW(Problem({.n_heads = 11, .kernel = IndexKernel::tensor_cores}).run(Where::device),
               UnsupportedShape);
}

TEST(IndexScores, BytesAreThoseOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  for (const IndexKernel kernel : {IndexKernel::tensor_cores, IndexKernel::cuda_cores}) {
    static_cast<void>(simt::take_traffic());
    EXPECT_TRUE(within(Problem({.lengths = {200, 200}, .kernel = kernel}).run(Where::device)));
    if (const auto traffic = simt::take_traffic()) {
      const OpCost cost = index_scores_cost({.n_sequences = 2, .n_tokens = 200});
      EXPECT_EQ(static_cast<double>(traffic->read_bytes()), cost.read.value());
      EXPECT_EQ(static_cast<double>(traffic->stored_bytes), cost.written.value());
    }
  }
}

TEST(IndexScores, RefusesWhatIsNotBuilt) {
  EXPECT_THROW(Problem({.head_dim = 48}).run(Where::cpu), UnsupportedShape);
  IndexScoresParams two_keys;
  two_keys.keys.n_kv_heads = 2;
  EXPECT_THROW(index_scores_cpu(two_keys), UnsupportedShape);
}

}  // namespace
}  // namespace kvfathom::kernels
