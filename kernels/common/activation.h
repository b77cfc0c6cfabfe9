// The activation functions of feed-forward layers.
#pragma once

#include <cmath>
#include <cstdint>

namespace kvfathom::kernels {

enum class Activation : std::uint8_t {
  silu,          ///< x / (1 + e^-x): SwiGLU
  gelu_tanh,     ///< x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))): GeGLU
  relu_squared,  ///< max(x, 0)^2
};

/// In double, for references. Its slope is at most 1.13 in size for silu and gelu, 2 |x| for
/// relu_squared.
[[nodiscard]] inline double activation_reference(Activation activation, double x) {
  switch (activation) {
    case Activation::silu:
      return x / (1.0 + std::exp(-x));
    case Activation::gelu_tanh:
      return 0.5 * x * (1.0 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case Activation::relu_squared:
      return x > 0.0 ? x * x : 0.0;
  }
  return 0.0;
}

/// The same in float; `exp2` says how. gelu by 1 + tanh(y) = 2 / (1 + e^-2y).
template <typename Exp2>
[[nodiscard]] constexpr float activate(Activation activation, float x, const Exp2& exp2) {
  constexpr float kLog2OfE = 1.4426950408889634F;
  if (activation == Activation::relu_squared) {
    return x > 0.0F ? x * x : 0.0F;
  }
  const float y =
      activation == Activation::silu ? x : 2.0F * 0.7978845608028654F * (x + 0.044715F * x * x * x);
  return x / (1.0F + exp2(-kLog2OfE * y));
}

}  // namespace kvfathom::kernels
