#include <string>

#include "kernels/cache_write/cache_write.h"
#include "kernels/common/error.h"

namespace kvfathom::kernels {

void check_cache_write(const CacheWriteParams& params) {
  static_cast<void>(row_data_bytes(params.cache.format, params.head_dim));  // whole blocks
  const Rope& rope = params.rope;
  if (params.head_dim <= 0 || params.head_dim > kLargestRow) {
    throw UnsupportedShape("cache_write: head_dim = " + std::to_string(params.head_dim) +
                           "; 1 to " + std::to_string(kLargestRow) + " are built");
  }
  if (rope.rotary_dim < 0 || rope.rotary_dim % 2 != 0 || rope.rotary_dim > params.head_dim) {
    throw UnsupportedShape("cache_write: rotary_dim = " + std::to_string(rope.rotary_dim) +
                           " is not even or exceeds head_dim");
  }
  if (rope.rotary_dim > 0 && (rope.turns_per_position == nullptr || params.positions == nullptr)) {
    throw UnsupportedShape("cache_write: RoPE without turns_per_position or positions");
  }
}

void check_dequantise(const DequantiseParams& params) {
  static_cast<void>(row_data_bytes(params.cache.format, params.head_dim));
  if (params.head_dim <= 0 || params.head_dim % 8 != 0) {
    throw UnsupportedShape("dequantise: head_dim = " + std::to_string(params.head_dim) +
                           " is not a multiple of 8");
  }
}

}  // namespace kvfathom::kernels
