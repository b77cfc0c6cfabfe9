#include "model/memory/inverse.h"

#include <random>

#include <gtest/gtest.h>

namespace kvfathom {
namespace {

/// An engine whose scratch shrinks as the context grows past a point, in steps of 64 tokens.
class SawtoothPlan final : public MemoryPlan {
 public:
  SawtoothPlan(std::int64_t weights, std::int64_t per_token, std::int64_t period)
      : weights_(weights), per_token_(per_token), period_(period) {}

  [[nodiscard]] MemoryReport evaluate(std::int64_t context_tokens) const override {
    const std::int64_t cells = (context_tokens + 63) / 64 * 64;
    MemoryReport report;
    report.ledger.lines = {
        exact_line({0}, LedgerKind::weights, weights_),
        exact_line({0}, LedgerKind::cache, per_token_ * cells),
        exact_line({0}, LedgerKind::compute, 3 * per_token_ * (cells % period_))};
    return report;
  }
  [[nodiscard]] std::int64_t floor_bytes(Device, std::int64_t context_tokens) const override {
    return weights_ + per_token_ * ((context_tokens + 63) / 64 * 64);
  }
  [[nodiscard]] std::int64_t next_smaller(std::int64_t context_tokens) const override {
    return (context_tokens - 1) / 64 * 64;
  }
  [[nodiscard]] std::string command(std::int64_t, std::string_view) const override { return {}; }

 private:
  std::int64_t weights_;
  std::int64_t per_token_;
  std::int64_t period_;
};

TEST(LongestContext, NoLargerContextFitsThoughTheLedgerIsNotMonotone) {
  std::mt19937 random(7);
  std::uniform_int_distribution<std::int64_t> weights(1, 100000);
  std::uniform_int_distribution<std::int64_t> per_token(1, 50);
  std::uniform_int_distribution<std::int64_t> period(65, 3000);
  std::uniform_int_distribution<std::int64_t> memory(1, 400000);
  for (int i = 0; i < 200; ++i) {
    const SawtoothPlan plan(weights(random), per_token(random), period(random));
    const std::array capacity{Capacity{{0}, memory(random)}};
    constexpr std::int64_t kLimit = 5000;
    const LongestContext longest = longest_context(plan, capacity, kLimit);
    for (std::int64_t n = longest.context_tokens + 1; n <= kLimit; ++n) {
      ASSERT_FALSE(fits(plan.evaluate(n).ledger, capacity)) << "a longer one fits: " << n;
    }
    if (longest.context_tokens > 0) {
      ASSERT_TRUE(fits(plan.evaluate(longest.context_tokens).ledger, capacity));
    }
  }
}

TEST(LongestContext, SaysWhatLimits) {
  const SawtoothPlan plan(1000, 10, 128);
  const auto limit = [&](std::int64_t memory) {
    const std::array capacity{Capacity{{0}, memory}};
    return longest_context(plan, capacity, 4096).limited_by;
  };
  EXPECT_EQ(limit(999), LimitedBy::weights);
  EXPECT_EQ(limit(1010), LimitedBy::memory);
  EXPECT_EQ(limit(20000), LimitedBy::memory);
  EXPECT_EQ(limit(10000000), LimitedBy::model);
}

TEST(Fits, IsDecidedByTheHighBound) {
  MemoryLedger ledger;
  ledger.lines = {{{0}, LedgerKind::runtime, 100, Provenance::modelled, 80, 150}};
  EXPECT_FALSE(fits(ledger, std::array{Capacity{{0}, 149}}));
  EXPECT_TRUE(fits(ledger, std::array{Capacity{{0}, 150}}));
}

}  // namespace
}  // namespace kvfathom
