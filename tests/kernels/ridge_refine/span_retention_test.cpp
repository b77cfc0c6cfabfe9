#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/ridge_refine/ridge_refine.h"

namespace kvfathom::kernels {
namespace {

TEST(SpanRetention, PooledScoresKeepRunsTogether) {
  std::vector<float> scores(20, 0.0F);
  scores[6] = 5.0F;
  scores[13] = 1.0F;
  const SpanRetention r = retain_spans(scores, 7, 2, 3, 0.3);
  EXPECT_EQ(r.kept, (std::vector<std::int32_t>{5, 6, 7, 12, 13, 18, 19}));
  // 30 % of 7 tokens: the two best of the chosen (equal means: the older), and the window.
  EXPECT_EQ(r.fixed, (std::vector<std::uint8_t>{1, 1, 0, 0, 0, 1, 1}));
}

TEST(SpanRetention, BudgetsAtTheEdges) {
  const std::vector<float> scores(5, 1.0F);
  EXPECT_EQ(retain_spans(scores, 50, 2, 5, 0.0).kept.size(), 5U);
  EXPECT_EQ(retain_spans(scores, 1, 2, 5, 0.0).kept, (std::vector<std::int32_t>{3, 4}));
  EXPECT_EQ(retain_spans(scores, 3, 9, 1, 1.0).kept.size(), 5U);
  EXPECT_TRUE(retain_spans({}, 3, 2, 5, 0.5).kept.empty());
  EXPECT_THROW(static_cast<void>(retain_spans(scores, 3, 2, 4, 0.1)), UnsupportedShape);
}

}  // namespace
}  // namespace kvfathom::kernels
