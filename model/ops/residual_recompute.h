// What rebuilding K and V from a layer's cached input costs: the scheme `residual`.
#pragma once

#include <cstdint>

#include "model/ops/op_cost.h"

namespace kvfathom {

struct ResidualRecomputeShape {
  std::int64_t n_tokens = 0;
  std::int64_t n_columns = 0;  ///< hidden_size, or the rank of the latents
  /// Of one token's stored X (both latents where there are two), its share of scales included.
  double stored_row_bytes = 0.0;
  bool separate_v = false;  ///< K and V have latents of their own
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t rotary_dim = 0;
  bool norm = true;                  ///< RMSNorm of X
  bool k_norm = false;               ///< RMSNorm of every key head
  std::int64_t cache_row_bytes = 0;  ///< K or V of one token and head, scales included
  std::int64_t chunk_tokens = 1024;  ///< rebuilt at a time: the weights are read once a chunk
};

/// FLOPs: 4 n_columns kvd a token for the product (schemes: L * 4 d kvd over all layers), and
/// what norms and RoPE add. Bytes: the stored rows, the weights once a chunk, and every buffer
/// between the kernels written and read once.
[[nodiscard]] OpCost residual_recompute_cost(const ResidualRecomputeShape& shape);

}  // namespace kvfathom
