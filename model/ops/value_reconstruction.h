// The cost of rebuilding values from keys (scheme k-only), as kernels/value_reconstruction does it.
#pragma once

#include <cstdint>

#include "model/ops/op_cost.h"

namespace kvfathom {

struct ValueReconstructionShape {
  std::int64_t n_sequences = 1;
  std::int64_t n_tokens = 0;  ///< of each sequence
  std::int64_t n_heads = 0;
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;
  bool keys_rotated = false;  ///< the cached keys are turned back as they are read
  std::int64_t n_splits = 1;  ///< runs of the second pass
};

/// V = K W for every cached token. Keys and values are 16-bit.
[[nodiscard]] OpCost value_rows_cost(const ValueReconstructionShape& shape);

/// How often the decode reads the keys: scores once for 16 query heads of a KV head, sums once for
/// 16 query heads (up to 16) or for 64 (more).
[[nodiscard]] std::int64_t value_decode_passes(const ValueReconstructionShape& shape);
/// Absorbed decode: scores, weights, sums over the full key rows, projection.
[[nodiscard]] OpCost value_decode_cost(const ValueReconstructionShape& shape);

}  // namespace kvfathom
