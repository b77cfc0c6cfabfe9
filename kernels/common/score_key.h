// Scores as integers of the same order, for selecting the largest.
#pragma once

#include <cstdint>

#include "kernels/common/number_formats.h"

namespace kvfathom::kernels {

/// Ranks above every score: a token that must be kept.
inline constexpr std::uint32_t kKeptKey = 0xffffffffU;

/// Ascends with the score; -0 and +0 are one key, NaN ranks below everything.
KVFATHOM_HD std::uint32_t score_key(float score) {
  const std::uint32_t bits = bits_of_f32(score + 0.0F);
  if ((bits & 0x7fffffffU) > 0x7f800000U) {
    return 0;
  }
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

}  // namespace kvfathom::kernels
