#include "cli/device_plan.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace kvfathom::cli {
namespace {

void merge(std::vector<LedgerLine>& lines, const LedgerLine& added) {
  for (LedgerLine& line : lines) {
    if (line.device == added.device && line.kind == added.kind) {
      line.bytes += added.bytes;
      line.low_bytes += added.low_bytes;
      line.high_bytes += added.high_bytes;
      line.provenance = worst(line.provenance, added.provenance);
      return;
    }
  }
  lines.push_back(added);
}

/// gpu0, gpu1, .., host; within a device by kind.
bool printed_before(const LedgerLine& a, const LedgerLine& b) {
  const auto order = [](const LedgerLine& line) {
    const bool host = line.device.index == Device::kHost;
    return std::tuple(host, line.device.index, line.kind);
  };
  return order(a) < order(b);
}

class PlanOnMachine final : public MemoryPlan {
 public:
  PlanOnMachine(std::unique_ptr<MemoryPlan> plan, MachineRules rules)
      : plan_(std::move(plan)), rules_(std::move(rules)) {}

  [[nodiscard]] MemoryReport evaluate(std::int64_t context_tokens) const override {
    MemoryReport report = plan_->evaluate(context_tokens);
    std::vector<LedgerLine> lines;
    for (LedgerLine line : report.ledger.lines) {
      if (rules_.host_shares_memory && line.device.index == Device::kHost) {
        line.device = Device{0};
      }
      merge(lines, line);
    }
    if (rules_.reserve_bytes > 0) {
      for (const Device device : rules_.devices) {
        merge(lines, exact_line(device, LedgerKind::reserve, rules_.reserve_bytes));
      }
    }
    std::stable_sort(lines.begin(), lines.end(), printed_before);
    report.ledger.lines = std::move(lines);
    return report;
  }

  [[nodiscard]] std::int64_t floor_bytes(Device device,
                                         std::int64_t context_tokens) const override {
    std::int64_t bytes = plan_->floor_bytes(device, context_tokens);
    if (rules_.host_shares_memory && device == Device{0}) {
      bytes += plan_->floor_bytes(Device{Device::kHost}, context_tokens);
    }
    const bool reserved =
        std::find(rules_.devices.begin(), rules_.devices.end(), device) != rules_.devices.end();
    return bytes + (reserved ? rules_.reserve_bytes : 0);
  }

  [[nodiscard]] std::int64_t next_smaller(std::int64_t context_tokens) const override {
    return plan_->next_smaller(context_tokens);
  }

  [[nodiscard]] std::optional<Placement> placement() const override { return plan_->placement(); }

  [[nodiscard]] std::string command(std::int64_t context_tokens,
                                    std::string_view model) const override {
    return plan_->command(context_tokens, model);
  }

 private:
  std::unique_ptr<MemoryPlan> plan_;
  MachineRules rules_;
};

}  // namespace

std::unique_ptr<MemoryPlan> on_machine(std::unique_ptr<MemoryPlan> plan, MachineRules rules) {
  return std::make_unique<PlanOnMachine>(std::move(plan), std::move(rules));
}

}  // namespace kvfathom::cli
