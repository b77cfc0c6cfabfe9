// What writing new K and V rows to a cache costs, and reading a cache back as float.
#pragma once

#include <cstdint>

#include "model/ops/op_cost.h"

namespace kvfathom {

struct CacheWriteShape {
  std::int64_t n_tokens = 0;  ///< new tokens (written), or cached tokens (dequantised)
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t rotary_dim = 0;
  double element_bytes = 2.0;         ///< of the K and V that come from the projections
  std::int64_t stored_row_bytes = 0;  ///< K or V of one token and head, scales included
  bool has_v = true;                  ///< else K alone is stored
};

/// RoPE on K, then it and V quantised and stored. FLOPs: 6 per rotated pair; the handful per
/// element of finding a scale and dividing by it are no FLOPs that hardware is rated by, and left
/// out.
[[nodiscard]] OpCost cache_write_cost(const CacheWriteShape& shape);

/// K and V of n_tokens read and written as float.
[[nodiscard]] OpCost dequantise_cost(const CacheWriteShape& shape);

}  // namespace kvfathom
