// A count of elements or bytes that may grow with the cells of the caches.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace kvfathom::llama_cpp {

/// Every cache holds a multiple of this many cells.
inline constexpr std::int64_t kCellBlock = 256;

/// Cells per stream of the full-attention and of the sliding-window cache: multiples of kCellBlock.
struct CacheCells {
  std::int64_t full = 0;
  std::int64_t window = 0;
  friend bool operator==(const CacheCells&, const CacheCells&) = default;
};

/// constant + per_full_block * cells.full / 256 + per_window_block * cells.window / 256. Every
/// extent and stride of a graph has this form, so that one graph serves every context length.
/// Counting by block keeps rows of cells whole where a quantised type packs 32 of them.
struct Affine {
  std::int64_t constant = 0;
  std::int64_t per_full_block = 0;
  std::int64_t per_window_block = 0;

  constexpr Affine() = default;
  constexpr Affine(std::int64_t value) : constant(value) {}  // NOLINT: counts convert silently
  constexpr Affine(std::int64_t c, std::int64_t full, std::int64_t window)
      : constant(c), per_full_block(full), per_window_block(window) {}

  [[nodiscard]] constexpr bool is_constant() const {
    return per_full_block == 0 && per_window_block == 0;
  }
  [[nodiscard]] constexpr std::int64_t at(const CacheCells& cells) const {
    return constant + per_full_block * (cells.full / kCellBlock) +
           per_window_block * (cells.window / kCellBlock);
  }

  constexpr Affine& operator+=(const Affine& b) {
    constant += b.constant;
    per_full_block += b.per_full_block;
    per_window_block += b.per_window_block;
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
    return {v.constant * f, v.per_full_block * f, v.per_window_block * f};
  }
  friend constexpr bool operator==(const Affine&, const Affine&) = default;
};

/// a / divisor where every coefficient divides (extents of equal parts).
[[nodiscard]] constexpr Affine divide(const Affine& a, std::int64_t divisor) {
  if (a.constant % divisor != 0 || a.per_full_block % divisor != 0 ||
      a.per_window_block % divisor != 0) {
    throw std::logic_error("a tensor extent that does not divide");
  }
  return {a.constant / divisor, a.per_full_block / divisor, a.per_window_block / divisor};
}

}  // namespace kvfathom::llama_cpp
