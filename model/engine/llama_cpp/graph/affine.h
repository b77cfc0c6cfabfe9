// A count of elements or bytes that may grow with the cells of the caches.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace kvfathom::llama_cpp {

/// Cells per stream of the full-attention and of the sliding-window cache.
struct CacheCells {
  std::int64_t full = 0;
  std::int64_t window = 0;
  friend bool operator==(const CacheCells&, const CacheCells&) = default;
};

/// constant + per_full_cell * cells.full + per_window_cell * cells.window. Every extent and stride
/// of a graph has this form, so that one graph serves every context length.
struct Affine {
  std::int64_t constant = 0;
  std::int64_t per_full_cell = 0;
  std::int64_t per_window_cell = 0;

  constexpr Affine() = default;
  constexpr Affine(std::int64_t value) : constant(value) {}  // NOLINT: counts convert silently
  constexpr Affine(std::int64_t c, std::int64_t full, std::int64_t window)
      : constant(c), per_full_cell(full), per_window_cell(window) {}

  [[nodiscard]] constexpr bool is_constant() const {
    return per_full_cell == 0 && per_window_cell == 0;
  }
  [[nodiscard]] constexpr std::int64_t at(const CacheCells& cells) const {
    return constant + per_full_cell * cells.full + per_window_cell * cells.window;
  }

  constexpr Affine& operator+=(const Affine& b) {
    constant += b.constant;
    per_full_cell += b.per_full_cell;
    per_window_cell += b.per_window_cell;
    return *this;
  }
  friend constexpr Affine operator+(Affine a, const Affine& b) { return a += b; }
  friend constexpr Affine operator-(const Affine& a, const Affine& b) { return a + b * -1; }
  /// At most one factor may depend on the cells: no tensor has a cell axis twice.
  friend constexpr Affine operator*(const Affine& a, const Affine& b) {
    if (!a.is_constant() && !b.is_constant()) {
      throw std::logic_error("a tensor with two axes of cache cells");
    }
    const Affine& v = a.is_constant() ? b : a;
    const std::int64_t f = a.is_constant() ? a.constant : b.constant;
    return {v.constant * f, v.per_full_cell * f, v.per_window_cell * f};
  }
  friend constexpr bool operator==(const Affine&, const Affine&) = default;
};

/// a / divisor where every coefficient divides (extents of equal parts).
[[nodiscard]] constexpr Affine divide(const Affine& a, std::int64_t divisor) {
  if (a.constant % divisor != 0 || a.per_full_cell % divisor != 0 ||
      a.per_window_cell % divisor != 0) {
    throw std::logic_error("a tensor extent that does not divide");
  }
  return {a.constant / divisor, a.per_full_cell / divisor, a.per_window_cell / divisor};
}

}  // namespace kvfathom::llama_cpp
