// One stored weight tensor: name, shape, type.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "model/dtype.h"

namespace kvfathom {

/// A weight tensor as a file stores it. `shape[0]` is the contiguous axis (ggml order: a matrix
/// that maps n inputs to m outputs is {n, m}); unused axes are 1.
struct Tensor {
  std::string name;  ///< GGUF's name ("blk.0.attn_q.weight") wherever GGUF has one
  std::array<std::int64_t, 4> shape{1, 1, 1, 1};
  DType dtype = DType::f32;
  friend bool operator==(const Tensor&, const Tensor&) = default;
};

[[nodiscard]] inline std::int64_t n_elements(const Tensor& t) {
  return t.shape[0] * t.shape[1] * t.shape[2] * t.shape[3];
}

/// Bytes of the tensor's data, without alignment (ggml_nbytes of a contiguous tensor).
[[nodiscard]] inline std::int64_t data_bytes(const Tensor& t) {
  return row_bytes(t.dtype, t.shape[0]) * t.shape[1] * t.shape[2] * t.shape[3];
}

}  // namespace kvfathom
