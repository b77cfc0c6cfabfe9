// Element types of activations, said at run time: kernels that move little read any of them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/number_formats.h"

namespace kvfathom::kernels {

enum class Element : std::uint8_t { f32, f16, bf16 };

KVFATHOM_HD int element_bytes(Element element) {
  return element == Element::f32 ? 4 : 2;
}

/// Element i of an array in host memory, exactly.
[[nodiscard]] inline float element_at(Element element, const void* array, std::int64_t i) {
  switch (element) {
    case Element::f32:
      return static_cast<const float*>(array)[i];
    case Element::f16:
      return to_f32(static_cast<const F16*>(array)[i]);
    case Element::bf16:
      return to_f32(static_cast<const Bf16*>(array)[i]);
  }
  return 0.0F;
}

}  // namespace kvfathom::kernels
