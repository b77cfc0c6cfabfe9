// What a GEMV on the CPU reads of its tokens, the same for every instruction set.
#pragma once

#include <cstdint>

#include "kernels/common/weight_format.h"

namespace kvfathom::kernels {

/// Elements of a row that share a scale, where there is one.
inline constexpr int kGroup = 32;

/// Tokens as floats.
struct GemvTokens {
  const float* x;  ///< [m, k]
  std::int64_t k;
  const float* sums;        ///< [m, sum_stride] of each group of x
  std::int64_t sum_stride;  ///< 0 where no sums are needed
};

/// Formats of nibbles subtract an offset, times the sum of what it meets.
[[nodiscard]] constexpr std::int64_t gemv_sum_stride(const WeightMatrix& weights) {
  const bool offsets = weights.format == WeightFormat::q4_0 || weights.format == WeightFormat::q4_k;
  return offsets ? weights.k / kGroup : 0;
}

}  // namespace kvfathom::kernels
