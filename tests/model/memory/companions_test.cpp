#include "model/memory/companions.h"

#include <random>

#include <gtest/gtest.h>

#include "model/memory/inverse.h"

namespace kvfathom {
namespace {

constexpr Device kGpu{0};
constexpr Device kHost{Device::kHost};

/// Cache in steps, scratch that shrinks now and then, and a runtime.
class SmallPlan final : public MemoryPlan {
 public:
  SmallPlan(std::int64_t weights, std::int64_t per_token, std::int64_t step)
      : weights_(weights), per_token_(per_token), step_(step) {}

  [[nodiscard]] MemoryReport evaluate(std::int64_t context_tokens) const override {
    const std::int64_t cells = (context_tokens + step_ - 1) / step_ * step_;
    MemoryReport report;
    report.ledger.lines = {
        exact_line(kGpu, LedgerKind::weights, weights_),
        exact_line(kGpu, LedgerKind::cache, per_token_ * cells),
        exact_line(kGpu, LedgerKind::compute, per_token_ * (cells % (5 * step_))),
        {kGpu, LedgerKind::runtime, 50, Provenance::modelled, 40, 90},
        exact_line(kHost, LedgerKind::weights, 7)};
    return report;
  }
  [[nodiscard]] std::int64_t floor_bytes(Device device, std::int64_t tokens) const override {
    const std::int64_t cells = (tokens + step_ - 1) / step_ * step_;
    return device == kGpu ? weights_ + per_token_ * cells + 90 : 7;
  }
  [[nodiscard]] std::int64_t next_smaller(std::int64_t tokens) const override {
    return (tokens - 1) / step_ * step_;
  }
  [[nodiscard]] std::string command(std::int64_t, std::string_view model) const override {
    return "run " + std::string(model);
  }

 private:
  std::int64_t weights_;
  std::int64_t per_token_;
  std::int64_t step_;
};

std::unique_ptr<MemoryPlan> with_a_draft(std::int64_t base_step, std::int64_t draft_step) {
  std::vector<Companion> companions(1);
  companions[0].plan = std::make_unique<SmallPlan>(100, 2, draft_step);
  companions[0].fixed = {{kGpu, LedgerKind::draft, 0, Provenance::modelled, 0, 30}};
  companions[0].options = " --draft d";
  return with_companions(std::make_unique<SmallPlan>(1000, 10, base_step), std::move(companions));
}

TEST(Companions, OneLinePerDeviceHoldsAllButTheRuntime) {
  const MemoryLedger ledger = with_a_draft(16, 16)->evaluate(64).ledger;
  // weights 100, cache 2 x 64, scratch 2 x 64; the runtime is the base's 50 alone
  EXPECT_EQ(ledger.total(kGpu).bytes, 1000 + 640 + 640 + 50 + 100 + 128 + 128);
  EXPECT_EQ(ledger.total(kGpu).high_bytes, ledger.total(kGpu).bytes + 40 + 30);
  EXPECT_EQ(ledger.total(kHost).bytes, 14);
  EXPECT_EQ(ledger.bytes_of(LedgerKind::draft), 100 + 128 + 128 + 7);
  EXPECT_EQ(ledger.bytes_of(LedgerKind::weights), 1007);
  EXPECT_EQ(ledger.lines.back().device, kHost);
}

TEST(Companions, TheCommandNamesThem) {
  EXPECT_EQ(with_a_draft(16, 16)->command(1, "m"), "run m --draft d");
}

TEST(Companions, TheAnswerFitsAndNoLargerContextDoes) {
  std::mt19937 random(11);
  for (int i = 0; i < 200; ++i) {
    const auto plan = with_a_draft(1 + static_cast<std::int64_t>(random() % 40),
                                   1 + static_cast<std::int64_t>(random() % 40));
    constexpr std::int64_t kLimit = 300;
    const std::vector<Capacity> capacities{{kGpu, static_cast<std::int64_t>(random() % 9000)},
                                           {kHost, 14}};
    std::int64_t largest = 0;
    for (std::int64_t n = 1; n <= kLimit; ++n) {
      largest = fits(plan->evaluate(n).ledger, capacities) ? n : largest;
      ASSERT_LE(plan->floor_bytes(kGpu, n), plan->evaluate(n).ledger.total(kGpu).high_bytes);
    }
    EXPECT_EQ(longest_context(*plan, capacities, kLimit).context_tokens, largest);
  }
}

}  // namespace
}  // namespace kvfathom
