#include "kernels/eviction_scores/eviction_scores.h"

#include <cmath>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/common/tolerance.h"
#include "model/ops/eviction_scores.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/kv_cache_data.h"
#include "tests/kernels/support/schedules.h"
#include "tests/kernels/support/traffic.h"
#include "tests/kernels/support/where.h"

namespace kvfathom::kernels {
namespace {

struct Case {
  KvCacheSpec cache;
  int n_heads = 1;
  int n_queries = 1;
  bool per_layer = false;
  bool accumulate = false;
  float weight = 1.0F;
  float q_deviation = 1.0F;
};

class Problem {
 public:
  explicit Problem(const Case& of) : case_(of), cache_(of.cache) {
    RandomData random(5);
    const std::size_t n =
        static_cast<std::size_t>(cache_.n_sequences()) * of.n_queries * of.n_heads * of.cache.k_dim;
    for (std::size_t i = 0; i < n; ++i) {
      const float x = random.normal(of.q_deviation);
      const bool bf16 = of.cache.format == KvFormat::bf16;
      q_.push_back(bf16 ? to_bf16(x).bits : to_f16(x).bits);
      q_values_.push_back(bf16 ? to_f32(to_bf16(x)) : to_f32(to_f16(x)));
    }
    n_groups_ = of.per_layer ? 1 : of.cache.n_kv_heads;
    max_tokens_ = cache_.longest() + 2;
    scores_.assign(static_cast<std::size_t>(cache_.n_sequences()) * n_groups_ * max_tokens_,
                   kBefore);
  }

  [[nodiscard]] EvictionScoresParams params(const KvCacheView& view) const {
    EvictionScoresParams p;
    p.n_heads = case_.n_heads;
    p.head_dim = case_.cache.k_dim;
    p.cache = view;
    p.n_queries = case_.n_queries;
    p.q = q_.data();
    p.softmax_scale = 1.0F / std::sqrt(static_cast<float>(case_.cache.k_dim));
    p.per_layer = case_.per_layer;
    p.weight = case_.weight;
    p.accumulate = case_.accumulate;
    p.max_tokens = max_tokens_;
    return p;
  }

  using Mutate = std::function<void(EvictionScoresParams&)>;
  Comparison run(Where where, const Mutate& mutate = {}) {
    std::vector<float> got = scores_;
    if (where == Where::cpu) {
      EvictionScoresParams p = params(cache_.host());
      p.scores = got.data();
      if (mutate) {
        mutate(p);
      }
      eviction_scores_cpu(p, 2);
    } else {
      const DeviceArray<std::uint16_t> q(q_);
      const DeviceArray<float> scores(got);
      EvictionScoresParams p = params(cache_.device());
      p.q = q.data();
      p.scores = scores.data();
      if (mutate) {
        mutate(p);
      }
      const auto scratch_bytes = static_cast<std::size_t>(eviction_scores_scratch_bytes(p));
      const DeviceArray<std::byte> scratch(std::vector<std::byte>(scratch_bytes, std::byte{0xff}));
      eviction_scores_launch(p, scratch.data());
      synchronize();
      got = scores.to_host();
    }
    return compare_to_reference(got);
  }

  /// What token `token` of a sequence and group gets, as the reference says.
  double reference_score(int sequence, int group, int token) {
    const std::vector<double> all = reference().scores;
    return all[static_cast<std::size_t>(sequence * n_groups_ + group) * max_tokens_ + token];
  }

  void plant(int sequence, int kv_head, int token, float score) {
    const int group = case_.n_heads / case_.cache.n_kv_heads;
    const std::size_t first =
        ((static_cast<std::size_t>(sequence) * case_.n_queries + case_.n_queries - 1) *
             case_.n_heads +
         static_cast<std::size_t>(kv_head) * group) *
        case_.cache.k_dim;
    cache_.plant_dominant(sequence,
                          kv_head,
                          token,
                          std::span<const float>(q_values_).subspan(first, case_.cache.k_dim),
                          score);
  }
  KvCacheData& cache() { return cache_; }

 private:
  static constexpr float kBefore = 0.125F;

  struct Reference {
    std::vector<double> scores;
    double largest_abs_score = 0.0;
  };
  Reference reference() {
    Reference out;
    out.scores.assign(scores_.begin(), scores_.end());
    EvictionScoresReference result{out.scores.data(), 0.0};
    eviction_scores_reference(params(cache_.host()), result);
    out.largest_abs_score = result.largest_abs_score;
    return out;
  }
  Comparison compare_to_reference(const std::vector<float>& got) {
    const Reference want = reference();
    const int terms = case_.n_heads / n_groups_ * case_.n_queries;
    std::vector<double> bound;
    for (const double score : want.scores) {
      bound.push_back(weight_sum_bound(
          score, want.largest_abs_score, terms, cache_.longest(), case_.cache.k_dim));
    }
    return compare<float>(got, want.scores, bound);
  }

  Case case_;
  KvCacheData cache_;
  std::vector<std::uint16_t> q_;
  std::vector<float> q_values_, scores_;
  int n_groups_ = 1;
  int max_tokens_ = 0;
};

Case h2o(KvFormat format, int dim, int n_kv_heads, int group, std::vector<int> lengths) {
  Case of;
  of.cache.format = format;
  of.cache.k_dim = dim;
  of.cache.v_dim = 0;
  of.cache.n_kv_heads = n_kv_heads;
  of.cache.lengths = std::move(lengths);
  of.n_heads = n_kv_heads * group;
  of.accumulate = true;
  return of;
}
Case tova(KvFormat format, int dim, int n_kv_heads, int group, std::vector<int> lengths) {
  Case of = h2o(format, dim, n_kv_heads, group, std::move(lengths));
  of.accumulate = false;
  of.per_layer = true;
  of.weight = 1.0F / static_cast<float>(of.n_heads);
  return of;
}
Case snap_kv(KvFormat format, int dim, int n_kv_heads, int group, std::vector<int> lengths) {
  Case of = h2o(format, dim, n_kv_heads, group, std::move(lengths));
  of.accumulate = false;
  of.n_queries = 6;
  of.weight = 1.0F / static_cast<float>(group);
  return of;
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const KvFormat format : kAllKvFormats) {
    cases.push_back(h2o(format, 64, 2, 5, {0, 1, 31, 32, 33}));
    cases.push_back(tova(format, 128, 3, 2, {40, 0, 1}));
    cases.push_back(snap_kv(format, 96, 2, 3, {70, 3, 6, 0}));
    cases.back().cache.page_tokens = 16;
    cases.back().cache.token_major = true;
  }
  Case ragged = snap_kv(KvFormat::bf16, 80, 2, 7, {5, 129, 64, 0, 130, 7});
  ragged.cache.lengths_per_head = true;
  ragged.cache.page_tokens = 64;
  cases.push_back(ragged);
  Case extreme = h2o(KvFormat::f16, 256, 1, 1, {65});
  extreme.q_deviation = 20.0F;
  cases.push_back(extreme);
  return cases;
}

void expect_right(Where where) {
  int index = 0;
  for (const Case& of : all_cases()) {
    SCOPED_TRACE("case " + std::to_string(index++));
    EXPECT_TRUE(within(Problem(of).run(where)));
  }
}

TEST(EvictionScoresReference, EqualKeysShareEqually) {
  Problem problem(tova(KvFormat::f16, 64, 2, 2, {10}));
  for (int token = 0; token < 10; ++token) {
    for (int head = 0; head < 2; ++head) {
      problem.cache().set_key(0, head, token, std::vector<float>(64, 0.5F));
    }
  }
  for (int token = 0; token < 10; ++token) {
    EXPECT_NEAR(problem.reference_score(0, 0, token), 0.1, 1e-12);
  }
}

// Equal keys: query j of 3 over 5 tokens sees 3 + j of them.
TEST(EvictionScoresReference, QueriesSeeNoLaterTokens) {
  Case of = snap_kv(KvFormat::f16, 64, 1, 1, {5});
  of.n_queries = 3;
  Problem problem(of);
  for (int token = 0; token < 5; ++token) {
    problem.cache().set_key(0, 0, token, std::vector<float>(64, 0.5F));
  }
  EXPECT_NEAR(problem.reference_score(0, 0, 0), 1.0 / 3 + 1.0 / 4 + 1.0 / 5, 1e-12);
  EXPECT_NEAR(problem.reference_score(0, 0, 3), 1.0 / 4 + 1.0 / 5, 1e-12);
  EXPECT_NEAR(problem.reference_score(0, 0, 4), 1.0 / 5, 1e-12);
}

TEST(EvictionScoresReference, ADominantTokenTakesAll) {
  Problem problem(h2o(KvFormat::f16, 64, 1, 1, {9}));
  problem.plant(0, 0, 4, 400.0F);
  EXPECT_NEAR(problem.reference_score(0, 0, 4), 1.0 + 0.125, 1e-9);  // added to what was there
  EXPECT_NEAR(problem.reference_score(0, 0, 3), 0.125, 1e-9);
}

TEST(EvictionScoresCpu, IsRight) {
  expect_right(Where::cpu);
}
TEST(EvictionScores, IsRight) {
  SKIP_WITHOUT_DEVICE();
  expect_right(Where::device);
}

TEST(EvictionScores, DominantTokensAtTheEdges) {
  for (const int token : {0, 31, 32, 63, 64, 69}) {
    Problem problem(snap_kv(KvFormat::bf16, 64, 2, 3, {70}));
    problem.plant(0, 1, token, 300.0F);
    for (const Where where : places()) {
      EXPECT_TRUE(within(problem.run(where))) << token;
    }
  }
}

TEST(EvictionScores, WrongArgumentsShow) {
  SKIP_WITHOUT_DEVICE();
  const std::vector<std::int32_t> shorter = {32, 69};
  const DeviceArray<std::int32_t> device_shorter(shorter);
  for (const auto& mutate : std::vector<Problem::Mutate>{
           [](EvictionScoresParams& p) { p.softmax_scale *= 1.01F; },
           [](EvictionScoresParams& p) { p.weight *= 1.01F; },
           [](EvictionScoresParams& p) { p.accumulate = true; },
           [](EvictionScoresParams& p) { p.n_queries -= 1; },
           [](EvictionScoresParams& p) { p.n_heads = 2; },
           [&](EvictionScoresParams& p) { p.cache.lengths = device_shorter.data(); },
           [](EvictionScoresParams& p) { p.cache.k.head_stride_bytes = 0; }}) {
    Problem problem(snap_kv(KvFormat::f16, 64, 2, 3, {33, 70}));
    EXPECT_FALSE(problem.run(Where::device, mutate).holds());
  }
}

TEST(EvictionScoresSmall, EveryScheduleGivesTheSame) {
  SKIP_WITHOUT_DEVICE();
  under_every_schedule([] {
    EXPECT_TRUE(within(Problem(snap_kv(KvFormat::q8_0, 32, 1, 4, {35})).run(Where::device)));
  });
}

TEST(EvictionScoresSmall, EverySyncMatters) {
  SKIP_WITHOUT_DEVICE();
  // 24 rows of queries: two tiles, so that the barrier between them matters; 130 tokens: rows
  // whose sums all four warps share.
  expect_every_sync_matters(
      [] { return Problem(snap_kv(KvFormat::f16, 32, 1, 4, {130})).run(Where::device).holds(); });
}

TEST(EvictionScores, BytesAreThoseOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  for (const Case& of : {h2o(KvFormat::bf16, 64, 2, 4, {40, 40}),
                         tova(KvFormat::q4_0, 128, 2, 3, {33, 33}),
                         snap_kv(KvFormat::q8_0, 64, 2, 3, {70})}) {
    const EvictionShape shape{.n_sequences = static_cast<std::int64_t>(of.cache.lengths.size()),
                              .n_heads = of.n_heads,
                              .n_kv_heads = of.cache.n_kv_heads,
                              .head_dim = of.cache.k_dim,
                              .n_tokens = of.cache.lengths[0],
                              .n_queries = of.n_queries,
                              .per_layer = of.per_layer,
                              .accumulate = of.accumulate,
                              .stored_row_bytes = row_data_bytes(of.cache.format, of.cache.k_dim) +
                                                  row_scale_bytes(of.cache.format, of.cache.k_dim)};
    static_cast<void>(simt::take_traffic());
    EXPECT_TRUE(within(Problem(of).run(Where::device)));
    EXPECT_TRUE(moved_bytes_of(eviction_scores_cost(shape)));
  }
}

TEST(EvictionScores, RefusesWhatIsNotBuilt) {
  EvictionScoresParams params = Problem(h2o(KvFormat::f16, 64, 2, 2, {4})).params({});
  params.cache.n_kv_heads = 3;
  EXPECT_THROW(eviction_scores_cpu(params), UnsupportedShape);
  params.cache.n_kv_heads = 2;
  params.head_dim = 260;
  EXPECT_THROW(eviction_scores_cpu(params), UnsupportedShape);
  params.head_dim = 64;
  params.per_layer = params.cache.lengths_per_head = true;
  EXPECT_THROW(eviction_scores_cpu(params), UnsupportedShape);
}

}  // namespace
}  // namespace kvfathom::kernels
