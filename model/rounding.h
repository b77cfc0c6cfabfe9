// Whole numbers rounded up: pages, tiles, padding.
#pragma once

#include <cstdint>

namespace kvfathom {

/// The least count of `by` that holds `n`, both above zero or `n` zero.
[[nodiscard]] constexpr std::int64_t divide_up(std::int64_t n, std::int64_t by) {
  return (n + by - 1) / by;
}

/// The least multiple of `to` that is no less than `n`.
[[nodiscard]] constexpr std::int64_t round_up(std::int64_t n, std::int64_t to) {
  return divide_up(n, to) * to;
}

}  // namespace kvfathom
