// Data for kernel tests: random, from a fixed seed, never zeros.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/number_formats.h"

namespace kvfathom::kernels {

class RandomData {
 public:
  explicit RandomData(std::uint64_t seed) : engine_(seed) {}

  [[nodiscard]] float normal(float deviation = 1.0F) { return normal_(engine_) * deviation; }
  [[nodiscard]] int integer(int first, int last) {
    return std::uniform_int_distribution<int>(first, last)(engine_);
  }
  [[nodiscard]] std::vector<float> normals(std::size_t n, float deviation = 1.0F) {
    std::vector<float> values(n);
    for (float& value : values) {
      value = normal(deviation);
    }
    return values;
  }
  [[nodiscard]] std::vector<Bf16> bf16_normals(std::size_t n, float deviation = 1.0F) {
    std::vector<Bf16> values(n);
    for (Bf16& value : values) {
      value = to_bf16(normal(deviation));
    }
    return values;
  }
  [[nodiscard]] std::vector<F16> f16_normals(std::size_t n, float deviation = 1.0F) {
    std::vector<F16> values(n);
    for (F16& value : values) {
      value = to_f16(normal(deviation));
    }
    return values;
  }
  [[nodiscard]] std::mt19937_64& engine() { return engine_; }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_;
};

}  // namespace kvfathom::kernels
