// Pooling of the scores along the tokens.
#include <functional>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/common/tolerance.h"
#include "kernels/eviction_scores/eviction_scores.h"
#include "model/ops/eviction_scores.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/random_data.h"
#include "tests/kernels/support/traffic.h"
#include "tests/kernels/support/where.h"

namespace kvfathom::kernels {
namespace {

struct Pools {
  std::vector<float> scores;
  std::vector<std::int32_t> lengths = {0, 3, 200, 131, 8, 9};
  PoolScoresParams params;

  Pools(Pooling pooling, int width, int n_window)
      : scores(RandomData(8).normals(std::size_t{6} * 200)) {
    params.n_sequences = 3;
    params.n_heads = 2;
    params.max_tokens = 200;
    params.lengths = lengths.data();
    params.lengths_per_head = true;
    params.n_window = n_window;
    params.pooling = pooling;
    params.width = width;
    params.scores = scores.data();
  }
  bool right(Where where, const std::function<void(PoolScoresParams&)>& mutate = {}) const {
    std::vector<float> got(scores.size(), 7.0F);
    std::vector<double> want(got.begin(), got.end());
    pool_scores_reference(params, want.data());
    PoolScoresParams p = params;
    if (mutate) {
      mutate(p);
    }
    if (where == Where::cpu) {
      p.pooled = got.data();
      pool_scores_cpu(p, 2);
    } else {
      const DeviceArray<float> device_scores(scores);
      const DeviceArray<std::int32_t> device_lengths(lengths);
      const DeviceArray<float> pooled(got);
      p.scores = device_scores.data();
      p.lengths = device_lengths.data();
      p.pooled = pooled.data();
      pool_scores_launch(p);
      synchronize();
      got = pooled.to_host();
    }
    std::vector<double> bound;
    for (const double x : want) {
      bound.push_back(dot_bound(x, 5.0, params.width));  // scores stay below 5
    }
    return compare<float>(got, want, bound).holds();
  }
};

TEST(PoolScores, IsRight) {
  for (const Pooling pooling : {Pooling::average, Pooling::maximum}) {
    for (const int width : {1, 5, 7}) {
      for (const int n_window : {0, 8}) {
        for (const Where where : places()) {
          EXPECT_TRUE(Pools(pooling, width, n_window).right(where));
        }
      }
    }
  }
}

TEST(PoolScores, WrongArgumentsShow) {
  SKIP_WITHOUT_DEVICE();
  const Pools pools(Pooling::average, 5, 8);
  EXPECT_FALSE(pools.right(Where::device, [](PoolScoresParams& p) { p.width = 7; }));
  EXPECT_FALSE(pools.right(Where::device, [](PoolScoresParams& p) { p.n_window = 7; }));
  EXPECT_FALSE(
      pools.right(Where::device, [](PoolScoresParams& p) { p.pooling = Pooling::maximum; }));
  PoolScoresParams even = pools.params;
  even.width = 4;
  EXPECT_THROW(pool_scores_cpu(even), UnsupportedShape);
}

TEST(PoolScores, BytesAreThoseOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  Pools pools(Pooling::average, 5, 8);
  pools.lengths.assign(6, 150);
  pools.params.lengths = pools.lengths.data();
  static_cast<void>(simt::take_traffic());
  EXPECT_TRUE(pools.right(Where::device));
  EXPECT_TRUE(
      moved_bytes_of(pool_scores_cost({.n_sequences = 3, .n_kv_heads = 2, .n_tokens = 150}, 8, 5)));
}

}  // namespace
}  // namespace kvfathom::kernels
