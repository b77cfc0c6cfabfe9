#include "kernels/eviction_scores/eviction_error.h"

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "tests/kernels/support/random_data.h"

namespace kvfathom::kernels {
namespace {

/// 256 tokens, of which 16 scattered ones carry nearly all of the attention of 4 queries, with
/// values that agree but for noise.
struct HeavyHitters {
  static constexpr int kTokens = 256;
  static constexpr int kDim = 32;
  std::vector<float> q, k, v, scores;

  HeavyHitters() {
    RandomData random(12);
    const std::vector<float> direction = random.normals(kDim);
    const std::vector<float> common = random.normals(kDim);
    for (int query = 0; query < 4; ++query) {
      for (const float x : direction) {
        q.push_back(x + random.normal(0.05F));
      }
    }
    for (int token = 0; token < kTokens; ++token) {
      const float pull = token % 16 == 5 ? 1.0F : 0.0F;
      for (int i = 0; i < kDim; ++i) {
        k.push_back(pull * direction[i] + random.normal(0.05F));
        v.push_back(pull * common[i] + random.normal(0.5F));
      }
    }
    for (int token = 0; token < kTokens; ++token) {
      scores.push_back(std::inner_product(direction.begin(),
                                          direction.end(),
                                          k.begin() + static_cast<std::ptrdiff_t>(token) * kDim,
                                          0.0F));
    }
  }
  [[nodiscard]] AttentionSample sample() const {
    return AttentionSample{4, kTokens, kDim, 0.25F, q, k, v};
  }
};

TEST(EvictionError, FallsAsTheBudgetGrows) {
  const HeavyHitters data;
  const std::vector<int> budgets = {0, 2, 4, 8, 12, 16, 64, 128, 256};
  const std::vector<double> errors =
      eviction_error_by_budget(data.sample(), data.scores, budgets, 0, 0);
  EXPECT_EQ(errors.front(), 1.0);
  EXPECT_EQ(errors.back(), 0.0);
  for (std::size_t i = 1; i < errors.size(); ++i) {
    EXPECT_LT(errors[i], errors[i - 1]) << budgets[i];
  }
  EXPECT_LT(errors[5], 0.05);             // all 16 that matter
  EXPECT_GT(errors[2], 4.0 * errors[5]);  // a quarter of them
}

// The tokens that matter are scattered: position alone does not find them.
TEST(EvictionError, PositionAloneLosesMore) {
  const HeavyHitters data;
  const std::vector<int> budgets = {32};
  const std::vector<float> equal(HeavyHitters::kTokens, 0.0F);
  const double by_score = eviction_error_by_budget(data.sample(), data.scores, budgets, 4, 12)[0];
  const double by_position = eviction_error_by_budget(data.sample(), equal, budgets, 4, 28)[0];
  EXPECT_GT(by_position, 5.0 * by_score);
}

TEST(EvictionError, OneTokenOfTwo) {
  // Two equal keys, values 1 and 3: all tokens give 2, the first alone 1.
  const std::vector<float> q = {1.0F};
  const std::vector<float> k = {0.5F, 0.5F};
  const std::vector<float> v = {1.0F, 3.0F};
  const std::vector<std::int32_t> kept = {0};
  EXPECT_DOUBLE_EQ(eviction_output_error({1, 2, 1, 1.0F, q, k, v}, kept), 0.5);
}

}  // namespace
}  // namespace kvfathom::kernels
