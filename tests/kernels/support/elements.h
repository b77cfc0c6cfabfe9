// Arrays of an element type that is said at run time.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/common/element.h"
#include "tests/kernels/support/random_data.h"

namespace kvfathom::kernels {

inline constexpr Element kAllElements[] = {Element::f32, Element::f16, Element::bf16};

struct ElementArray {
  ElementArray(Element of, const std::vector<float>& values) : element(of) {
    for (const float value : values) {
      const std::uint32_t bits = of == Element::f32   ? bits_of_f32(value)
                                 : of == Element::f16 ? to_f16(value).bits
                                                      : to_bf16(value).bits;
      for (int byte = 0; byte < element_bytes(of); ++byte) {
        bytes.push_back(static_cast<std::byte>(bits >> 8 * byte & 0xffU));
      }
    }
  }
  [[nodiscard]] static ElementArray random(Element of, std::size_t n, std::uint64_t seed) {
    return {of, RandomData(seed).normals(n)};
  }
  [[nodiscard]] static ElementArray poison(Element of, std::size_t n) {
    return {of, std::vector<float>(n, NAN)};
  }
  [[nodiscard]] std::vector<float> floats() const {
    std::vector<float> values;
    for (std::size_t i = 0; i < bytes.size() / element_bytes(element); ++i) {
      values.push_back(element_at(element, bytes.data(), static_cast<std::int64_t>(i)));
    }
    return values;
  }
  Element element;
  std::vector<std::byte> bytes;
};

}  // namespace kvfathom::kernels
