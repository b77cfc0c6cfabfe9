// What the tests of states share: inputs that run on either side, and the sums to expect.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/common/tolerance.h"
#include "kernels/state_update/state_update.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/elements.h"
#include "tests/kernels/support/random_data.h"
#include "tests/kernels/support/where.h"

namespace kvfathom::kernels {

/// Random numbers of an element type, on the host and, when asked for, on the device.
class StateInput {
 public:
  StateInput(Element element, std::size_t n, RandomData& random, float deviation = 1.0F)
      : bytes_(ElementArray(element, random.normals(n, deviation)).bytes) {}
  const void* at(Where where) {
    if (where == Where::cpu) {
      return bytes_.data();
    }
    device_ = DeviceArray<std::byte>(bytes_);
    return device_.data();
  }

 private:
  std::vector<std::byte> bytes_;
  DeviceArray<std::byte> device_;
};

/// Floats of which the device may hold a copy.
class StateFloats {
 public:
  explicit StateFloats(std::vector<float> values) : values_(std::move(values)) {}
  float* at(Where where) {
    if (where == Where::cpu) {
      return values_.data();
    }
    device_ = DeviceArray<float>(values_);
    return device_.data();
  }
  std::vector<float> after(Where where) {
    return where == Where::cpu ? values_ : device_.to_host();
  }
  [[nodiscard]] std::size_t size() const { return values_.size(); }

 private:
  std::vector<float> values_;
  DeviceArray<float> device_;
};

inline std::vector<float> between(RandomData& random, std::size_t n, float low, float high) {
  std::vector<float> values(n);
  for (float& x : values) {
    x = low + (high - low) / (1.0F + std::exp(-random.normal(2.0F)));
  }
  return values;
}
inline std::vector<float> not_a_number(std::size_t n) {
  return std::vector<float>(n, std::numeric_limits<float>::quiet_NaN());
}

/// The states and outputs in double, with the sums of absolute values that bounds need.
struct StateSums {
  std::vector<double> state, state_magnitude, out, out_magnitude;
  StateSums(std::size_t n_state, std::size_t n_out)
      : state(n_state), state_magnitude(n_state), out(n_out), out_magnitude(n_out) {}
  StateReference pointers() {
    return {state.data(), state_magnitude.data(), out.data(), out_magnitude.data()};
  }
};

inline Comparison compare_sums(const std::vector<float>& got,
                               const std::vector<double>& want,
                               const std::vector<double>& magnitude,
                               int n_products) {
  std::vector<double> bound;
  for (std::size_t i = 0; i < want.size(); ++i) {
    bound.push_back(dot_bound(want[i], magnitude[i], n_products));
  }
  return compare<float>(got, want, bound);
}

}  // namespace kvfathom::kernels
