// What the operations between the products of a layer ask of the machine.
#pragma once

#include <cstdint>

#include "model/ops/op_cost.h"

namespace kvfathom {

struct RmsNormShape {
  std::int64_t n_rows = 0;
  std::int64_t n_columns = 0;
  Bytes element{2.0};
  bool adds_residual = false;
};
/// The row passes twice, but the second time it is in a cache: counted once, as its weights are.
[[nodiscard]] OpCost rms_norm_cost(const RmsNormShape& shape);

[[nodiscard]] OpCost add_cost(std::int64_t n, Bytes element = Bytes(2.0));

struct GatedActivationShape {
  std::int64_t n_rows = 0;
  std::int64_t n_columns = 0;
  Bytes element{2.0};
  bool gated = true;  ///< activation(gate) * up, not activation(gate) alone
};
[[nodiscard]] OpCost gated_activation_cost(const GatedActivationShape& shape);

/// The logits are read once from memory; thresholds take further passes through the cache.
[[nodiscard]] OpCost sample_cost(std::int64_t n_rows,
                                 std::int64_t vocab_size,
                                 bool draws = true,
                                 Bytes element = Bytes(4.0));

}  // namespace kvfathom
