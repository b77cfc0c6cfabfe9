// The inverses of the ledger: what is the most that fits?
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "model/engine/engine.h"

namespace kvfathom {

/// What a device may be filled to.
struct Capacity {
  Device device;
  std::int64_t bytes = 0;  ///< usable: total or free memory less what is kept in reserve
};

/// Whether every device holds its lines, by the high bound of lines that are not exact.
[[nodiscard]] bool fits(const MemoryLedger& ledger, std::span<const Capacity> capacities);

enum class LimitedBy : std::uint8_t { memory, model, weights };
[[nodiscard]] std::string_view name(LimitedBy limit);

struct LongestContext {
  std::int64_t context_tokens = 0;  ///< 0: not even one token fits
  LimitedBy limited_by = LimitedBy::memory;
};

/// The largest N in [1, limit_tokens] whose ledger fits. Exact for ledgers that are not monotone:
/// the search walks down from the largest N whose floor fits. A plan's ledger may change only at
/// multiples of `step_tokens` (llama.cpp pads to 256 cells), so that is how it walks.
[[nodiscard]] LongestContext longest_context(const MemoryPlan& plan,
                                             std::span<const Capacity> capacities,
                                             std::int64_t limit_tokens);

}  // namespace kvfathom
