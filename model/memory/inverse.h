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
  bool with_gpu0 = false;  ///< the host's, of which gpu0 has what it holds too
};

/// What of a ledger is paid from `capacity`.
[[nodiscard]] DeviceTotal held(const MemoryLedger& ledger, const Capacity& capacity);

/// Whether lines of `device` are paid from `capacity`.
[[nodiscard]] inline bool pays_for(const Capacity& capacity, Device device) {
  return device == capacity.device || (capacity.with_gpu0 && device == Device{0});
}

/// Lower bound of what `capacity` is needed for at this or any larger context.
[[nodiscard]] std::int64_t floor_bytes(const MemoryPlan& plan,
                                       const Capacity& capacity,
                                       std::int64_t context_tokens);

/// Whether every device holds its lines, by the high bound of lines that are not exact.
[[nodiscard]] bool fits(const MemoryLedger& ledger, std::span<const Capacity> capacities);

enum class LimitedBy : std::uint8_t { memory, model, weights };
[[nodiscard]] std::string_view name(LimitedBy limit);

struct LongestContext {
  std::int64_t context_tokens = 0;  ///< 0: not even the least fits
  LimitedBy limited_by = LimitedBy::memory;
};

/// The largest N in [least_tokens, limit_tokens] whose ledger fits. Exact though a ledger is not
/// monotone: floors are, so bisection over them bounds N from above, and from there the search
/// walks down through every context whose ledger can differ.
[[nodiscard]] LongestContext longest_context(const MemoryPlan& plan,
                                             std::span<const Capacity> capacities,
                                             std::int64_t limit_tokens,
                                             std::int64_t least_tokens = 1);

}  // namespace kvfathom
