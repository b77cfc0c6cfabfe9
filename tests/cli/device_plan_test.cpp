#include "cli/device_plan.h"

#include <gtest/gtest.h>

#include "model/memory/inverse.h"

namespace kvfathom::cli {
namespace {

constexpr Device kGpu{0};
constexpr Device kHost{Device::kHost};

/// 100 bytes of weights on the GPU, 10 on the host, one byte of cache per token.
class SmallPlan final : public MemoryPlan {
 public:
  [[nodiscard]] MemoryReport evaluate(std::int64_t context_tokens) const override {
    MemoryReport report;
    report.context_tokens = context_tokens;
    report.ledger.lines = {exact_line(kGpu, LedgerKind::weights, 100),
                           exact_line(kGpu, LedgerKind::cache, context_tokens),
                           exact_line(kHost, LedgerKind::weights, 10),
                           exact_line(kHost, LedgerKind::compute, 5)};
    return report;
  }
  [[nodiscard]] std::int64_t floor_bytes(Device device, std::int64_t tokens) const override {
    return device == kGpu ? 100 + tokens : 15;
  }
  [[nodiscard]] std::int64_t next_smaller(std::int64_t tokens) const override { return tokens - 1; }
  [[nodiscard]] std::string command(std::int64_t, std::string_view model) const override {
    return "run " + std::string(model);
  }
};

std::int64_t longest(const MachineRules& rules, std::int64_t capacity_bytes) {
  const auto plan = on_machine(std::make_unique<SmallPlan>(), rules);
  const std::vector<Capacity> capacities{{kGpu, capacity_bytes}};
  return longest_context(*plan, capacities, 1000).context_tokens;
}

TEST(DevicePlan, WithoutRulesIsThePlan) {
  EXPECT_EQ(longest({}, 150), 50);
}

TEST(DevicePlan, ReserveIsALineThatTakesRoom) {
  MachineRules rules;
  rules.reserve_bytes = 20;
  rules.devices = {kGpu};
  EXPECT_EQ(longest(rules, 150), 30);
  const auto plan = on_machine(std::make_unique<SmallPlan>(), rules);
  const MemoryLedger ledger = plan->evaluate(1).ledger;
  EXPECT_EQ(ledger.bytes_of(LedgerKind::reserve), 20);
  EXPECT_EQ(ledger.total(kHost).bytes, 15);
}

TEST(DevicePlan, AHostThatSharesTheMemoryIsPaidFromIt) {
  MachineRules rules;
  rules.host_shares_memory = true;
  EXPECT_EQ(longest(rules, 150), 35);
  const auto plan = on_machine(std::make_unique<SmallPlan>(), rules);
  const MemoryLedger ledger = plan->evaluate(7).ledger;
  EXPECT_EQ(ledger.total(kHost).bytes, 0);
  EXPECT_EQ(ledger.total(kGpu).bytes, 122);
  ASSERT_EQ(ledger.lines.size(), 3U);  // weights merged, by kind
  EXPECT_EQ(ledger.lines[0].bytes, 110);
  EXPECT_EQ(ledger.lines[2].kind, LedgerKind::compute);
}

TEST(DevicePlan, TheCommandIsTheEngines) {
  EXPECT_EQ(on_machine(std::make_unique<SmallPlan>(), {})->command(1, "m"), "run m");
}

}  // namespace
}  // namespace kvfathom::cli
