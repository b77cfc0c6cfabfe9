// From a run-time number to a template argument.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "kernels/common/error.h"

namespace kvfathom::kernels {

/// Calls f(std::integral_constant<T, value>{}) for the one of `Values` that `value` is. Throws
/// UnsupportedShape, naming what is built, for any other.
template <typename T, T... Values, typename F>
void dispatch(std::integer_sequence<T, Values...>, T value, std::string_view what, F&& f) {
  const bool found =
      ((value == Values ? (f(std::integral_constant<T, Values>{}), true) : false) || ...);
  if (!found) {
    std::string built;
    ((built += (built.empty() ? "" : ", ") + std::to_string(static_cast<long long>(Values))), ...);
    throw UnsupportedShape(std::string(what) + " = " +
                           std::to_string(static_cast<long long>(value)) +
                           " has no kernel; built for: " + built);
  }
}

}  // namespace kvfathom::kernels
