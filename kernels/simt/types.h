// The plain types of the vocabulary.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvfathom::kernels::simt {

struct Dim3 {
  constexpr Dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1)  // NOLINT
      : x(x_size), y(y_size), z(z_size) {}
  unsigned x, y, z;
};

struct alignas(16) U32x4 {
  std::uint32_t x, y, z, w;
};
struct alignas(8) U32x2 {
  std::uint32_t x, y;
};

inline constexpr int kWarpSize = 32;
/// Shared memory that every device has without being asked.
inline constexpr std::size_t kDefaultSharedBytes = 48 * 1024;

}  // namespace kvfathom::kernels::simt
