#include "kernels/common/rope.h"

#include <cmath>
#include <numbers>
#include <string>

#include "kernels/common/error.h"

namespace kvfathom::kernels {

std::vector<std::uint64_t> rope_turns_per_position(int rotary_dim, double base) {
  if (rotary_dim < 0 || rotary_dim % 2 != 0 || !(base >= 1.0)) {
    throw UnsupportedShape("RoPE of " + std::to_string(rotary_dim) + " elements with base " +
                           std::to_string(base) + ": the first must be even, the second >= 1");
  }
  std::vector<std::uint64_t> turns(static_cast<std::size_t>(rotary_dim) / 2);
  for (std::size_t i = 0; i < turns.size(); ++i) {
    const long double exponent = -2.0L * static_cast<long double>(i) / rotary_dim;
    const long double radians = std::pow(static_cast<long double>(base), exponent);
    const long double fraction = radians / (2.0L * std::numbers::pi_v<long double>);
    turns[i] = static_cast<std::uint64_t>(std::roundl(fraction * 0x1p64L));
  }
  return turns;
}

}  // namespace kvfathom::kernels
