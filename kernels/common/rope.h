// Rotary position embedding (Su 2021): which elements turn together, and by how much.
//
// Angles are counted in turns, as 64-bit binary fractions: position * turns wraps around exactly,
// at any position, so that the host and the device turn by the same angle.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/common/number_formats.h"

namespace kvfathom::kernels {

enum class RopeStyle : std::uint8_t {
  halves,  ///< GPT-NeoX, Llama as on Hugging Face: element i with i + rotary_dim / 2
  pairs,   ///< GPT-J, Llama as published, DeepSeek: element 2 i with 2 i + 1
};

struct Rope {
  /// The leading elements of a row that turn: even, at most head_dim. 0: none.
  int rotary_dim = 0;
  RopeStyle style = RopeStyle::halves;
  /// [rotary_dim / 2] turns per position, in units of 2^-64 turn. Where the callee runs.
  const std::uint64_t* turns_per_position = nullptr;
};

/// base^(-2 i / rotary_dim) radians per position for i < rotary_dim / 2, in units of 2^-64 turn.
/// Scaled variants (YaRN, Llama 3) hand over a table of their own.
[[nodiscard]] std::vector<std::uint64_t> rope_turns_per_position(int rotary_dim, double base);

/// The two elements that pair i turns.
KVFATHOM_HD int rope_first(const Rope& rope, int i) {
  return rope.style == RopeStyle::halves ? i : 2 * i;
}
KVFATHOM_HD int rope_second(const Rope& rope, int i) {
  return rope.style == RopeStyle::halves ? i + rope.rotary_dim / 2 : 2 * i + 1;
}

/// The angle at a position, in turns: -0.5 .. 0.5, rounded to float.
KVFATHOM_HD float rope_turns(std::uint64_t turns_per_position, std::int32_t position) {
  const std::uint64_t wrapped =
      turns_per_position * static_cast<std::uint64_t>(static_cast<std::int64_t>(position));
  return static_cast<float>(static_cast<std::int64_t>(wrapped)) * 0x1p-64F;
}

}  // namespace kvfathom::kernels
