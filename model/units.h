// Physical quantities of the model: bytes, seconds, floating-point operations.
//
// A quantity is a double with its dimension in the type, so that dividing bytes by a
// bandwidth gives seconds and adding bytes to seconds does not compile. Sizes that an engine
// allocates are rounded as the engine rounds and stay `std::int64_t ..._bytes`: there a double
// would hide an off-by-one.
#pragma once

#include <compare>

namespace kvfathom {

/// A value of dimension byte^B * second^S * flop^F. Exact for whole numbers below 2^53.
template <int B, int S, int F>
class Quantity {
 public:
  constexpr Quantity() = default;
  constexpr explicit Quantity(double value) : value_(value) {}

  /// The number in base units (bytes, seconds, flops). The only way out of the type.
  [[nodiscard]] constexpr double value() const { return value_; }

  friend constexpr auto operator<=>(Quantity, Quantity) = default;
  friend constexpr Quantity operator+(Quantity a, Quantity b) {
    return Quantity(a.value_ + b.value_);
  }
  friend constexpr Quantity operator-(Quantity a, Quantity b) {
    return Quantity(a.value_ - b.value_);
  }
  friend constexpr Quantity operator*(Quantity a, double k) { return Quantity(a.value_ * k); }
  friend constexpr Quantity operator*(double k, Quantity a) { return a * k; }
  friend constexpr Quantity operator/(Quantity a, double k) { return Quantity(a.value_ / k); }
  constexpr Quantity& operator+=(Quantity b) { return *this = *this + b; }

 private:
  double value_ = 0.0;
};

template <int B1, int S1, int F1, int B2, int S2, int F2>
constexpr auto operator*(Quantity<B1, S1, F1> a, Quantity<B2, S2, F2> b) {
  return Quantity<B1 + B2, S1 + S2, F1 + F2>(a.value() * b.value());
}

/// A ratio of like quantities is a plain number; any other quotient is a quantity.
template <int B1, int S1, int F1, int B2, int S2, int F2>
constexpr auto operator/(Quantity<B1, S1, F1> a, Quantity<B2, S2, F2> b) {
  if constexpr (B1 == B2 && S1 == S2 && F1 == F2) {
    return a.value() / b.value();
  } else {
    return Quantity<B1 - B2, S1 - S2, F1 - F2>(a.value() / b.value());
  }
}

using Bytes = Quantity<1, 0, 0>;
using Seconds = Quantity<0, 1, 0>;
using Flops = Quantity<0, 0, 1>;
using BytesPerSecond = Quantity<1, -1, 0>;
using FlopsPerSecond = Quantity<0, -1, 1>;

}  // namespace kvfathom
