#include "model/memory/companions.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace kvfathom {
namespace {

void merge(std::vector<LedgerLine>& lines, LedgerLine added, LedgerKind kind) {
  added.kind = kind;
  const auto same = std::ranges::find_if(lines, [&](const LedgerLine& line) {
    return line.device == added.device && line.kind == kind;
  });
  if (same == lines.end()) {
    lines.push_back(added);
    return;
  }
  same->bytes += added.bytes;
  same->low_bytes += added.low_bytes;
  same->high_bytes += added.high_bytes;
  same->provenance = worst(same->provenance, added.provenance);
}

bool printed_before(const LedgerLine& a, const LedgerLine& b) {
  const auto order = [](const LedgerLine& line) {
    const bool host = line.device.index == Device::kHost;
    return std::tuple(host, line.device.index, line.kind);
  };
  return order(a) < order(b);
}

class PlanWithCompanions final : public MemoryPlan {
 public:
  PlanWithCompanions(std::unique_ptr<MemoryPlan> base, std::vector<Companion> companions)
      : base_(std::move(base)), companions_(std::move(companions)) {
    constexpr std::int64_t kAnyContext = 65'536;  // a runtime does not depend on it
    for (const Companion& companion : companions_) {
      if (companion.plan) {
        for (const LedgerLine& line : companion.plan->evaluate(kAnyContext).ledger.lines) {
          if (line.kind == LedgerKind::runtime) {
            runtimes_.push_back(line);
          }
        }
      }
    }
  }

  [[nodiscard]] MemoryReport evaluate(std::int64_t context_tokens) const override {
    MemoryReport report = base_->evaluate(context_tokens);
    std::vector<LedgerLine>& lines = report.ledger.lines;
    for (const Companion& companion : companions_) {
      if (companion.plan) {
        for (const LedgerLine& line : companion.plan->evaluate(context_tokens).ledger.lines) {
          if (line.kind != LedgerKind::runtime) {
            merge(lines, line, companion.kind);
          }
        }
      }
      for (const LedgerLine& line : companion.fixed) {
        merge(lines, line, companion.kind);
      }
    }
    std::stable_sort(lines.begin(), lines.end(), printed_before);
    return report;
  }

  [[nodiscard]] std::int64_t floor_bytes(Device device,
                                         std::int64_t context_tokens) const override {
    std::int64_t bytes = base_->floor_bytes(device, context_tokens);
    for (const Companion& companion : companions_) {
      bytes += companion.plan ? companion.plan->floor_bytes(device, context_tokens) : 0;
      for (const LedgerLine& line : companion.fixed) {
        bytes += line.device == device ? line.high_bytes : 0;
      }
    }
    for (const LedgerLine& line : runtimes_) {
      bytes -= line.device == device ? line.high_bytes : 0;
    }
    return bytes;
  }

  [[nodiscard]] std::int64_t next_smaller(std::int64_t context_tokens) const override {
    std::int64_t next = base_->next_smaller(context_tokens);
    for (const Companion& companion : companions_) {
      next = companion.plan ? std::max(next, companion.plan->next_smaller(context_tokens)) : next;
    }
    return next;
  }

  [[nodiscard]] std::optional<CachePool> pool(std::int64_t available_bytes,
                                              std::int64_t context_tokens) const override {
    return base_->pool(available_bytes, context_tokens);
  }

  [[nodiscard]] std::optional<Placement> placement() const override { return base_->placement(); }

  [[nodiscard]] std::string command(std::int64_t context_tokens,
                                    std::string_view model) const override {
    std::string text = base_->command(context_tokens, model);
    for (const Companion& companion : companions_) {
      text += text.empty() ? "" : companion.options;
    }
    return text;
  }

 private:
  std::unique_ptr<MemoryPlan> base_;
  std::vector<Companion> companions_;
  std::vector<LedgerLine> runtimes_;  ///< of the companions' plans: not paid again
};

}  // namespace

std::unique_ptr<MemoryPlan> with_companions(std::unique_ptr<MemoryPlan> base,
                                            std::vector<Companion> companions) {
  return std::make_unique<PlanWithCompanions>(std::move(base), std::move(companions));
}

}  // namespace kvfathom
