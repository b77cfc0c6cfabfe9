#include "model/memory/inverse.h"

#include <algorithm>
#include <array>

namespace kvfathom {
namespace {

bool floor_fits(const MemoryPlan& plan,
                std::span<const Capacity> capacities,
                std::int64_t context_tokens) {
  return std::ranges::all_of(capacities, [&](const Capacity& capacity) {
    return floor_bytes(plan, capacity, context_tokens) <= capacity.bytes;
  });
}

/// Largest N in [least, limit] whose floor fits, else less: floors are monotone, so bisection is
/// sound here.
std::int64_t largest_floor(const MemoryPlan& plan,
                           std::span<const Capacity> capacities,
                           std::int64_t least,
                           std::int64_t limit) {
  std::int64_t low = least - 1;  // fits, or is less
  std::int64_t high = limit + 1;
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (floor_fits(plan, capacities, middle) ? low : high) = middle;
  }
  return low;
}

/// Weights do not depend on the context; where nothing fits, reports are of the least.
bool weights_fit(const MemoryPlan& plan,
                 std::span<const Capacity> capacities,
                 std::int64_t least_tokens) {
  const MemoryLedger ledger = plan.evaluate(least_tokens).ledger;
  return std::ranges::all_of(capacities, [&](const Capacity& capacity) {
    std::int64_t weights_bytes = 0;
    for (const LedgerLine& line : ledger.lines) {
      if (pays_for(capacity, line.device) && line.kind == LedgerKind::weights) {
        weights_bytes += line.high_bytes;
      }
    }
    return weights_bytes <= capacity.bytes;
  });
}

}  // namespace

std::string_view name(LimitedBy limit) {
  constexpr std::array<std::string_view, 3> kNames{"memory", "model", "weights"};
  return kNames.at(static_cast<std::size_t>(limit));
}

DeviceTotal held(const MemoryLedger& ledger, const Capacity& capacity) {
  DeviceTotal total = ledger.total(capacity.device);
  if (capacity.with_gpu0) {
    const DeviceTotal gpu = ledger.total(Device{0});
    total.bytes += gpu.bytes;
    total.high_bytes += gpu.high_bytes;
  }
  return total;
}

std::int64_t floor_bytes(const MemoryPlan& plan,
                         const Capacity& capacity,
                         std::int64_t context_tokens) {
  const std::int64_t own = plan.floor_bytes(capacity.device, context_tokens);
  return capacity.with_gpu0 ? own + plan.floor_bytes(Device{0}, context_tokens) : own;
}

bool fits(const MemoryLedger& ledger, std::span<const Capacity> capacities) {
  return std::ranges::all_of(capacities, [&](const Capacity& capacity) {
    return held(ledger, capacity).high_bytes <= capacity.bytes;
  });
}

LongestContext longest_context(const MemoryPlan& plan,
                               std::span<const Capacity> capacities,
                               std::int64_t limit_tokens,
                               std::int64_t least_tokens) {
  std::int64_t tokens = largest_floor(plan, capacities, least_tokens, limit_tokens);
  while (tokens >= least_tokens && !fits(plan.evaluate(tokens).ledger, capacities)) {
    tokens = plan.next_smaller(tokens);
  }
  tokens = tokens < least_tokens ? 0 : tokens;
  LongestContext longest{tokens, tokens == limit_tokens ? LimitedBy::model : LimitedBy::memory};
  if (tokens == 0 && !weights_fit(plan, capacities, least_tokens)) {
    longest.limited_by = LimitedBy::weights;
  }
  return longest;
}

}  // namespace kvfathom
