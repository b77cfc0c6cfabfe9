// What one decode step of a layer with a state of fixed size costs: the state read and written
// whole, whatever the context's length.
#pragma once

#include <cstdint>

#include "model/ops/op_cost.h"

namespace kvfathom {

struct DeltaNetShape {
  std::int64_t n_sequences = 0;
  std::int64_t n_key_heads = 0;
  std::int64_t n_value_heads = 0;
  std::int64_t key_dim = 0;
  std::int64_t value_dim = 0;
  bool decay_per_channel = false;  ///< KDA
  double element_bytes = 2.0;      ///< of q, k and v
  double state_element_bytes = 4.0;
};
/// FLOPs per state element: 1 to decay, 2 for the answer to k, 2 to q, 2 for the rank-1 update.
[[nodiscard]] OpCost delta_net_cost(const DeltaNetShape& shape);

struct Mamba2Shape {
  std::int64_t n_sequences = 0;
  std::int64_t n_heads = 0;
  std::int64_t n_groups = 1;
  std::int64_t head_dim = 0;
  std::int64_t state_dim = 0;
  double element_bytes = 2.0;  ///< of x, dt, B and C
  double state_element_bytes = 4.0;
};
/// FLOPs per state element: 1 to decay, 2 to add, 2 for the product with C.
[[nodiscard]] OpCost mamba2_cost(const Mamba2Shape& shape);

struct ConvStateShape {
  std::int64_t n_sequences = 0;
  std::int64_t n_channels = 0;
  std::int64_t width = 4;
  bool bias = true;
  double element_bytes = 2.0;
};
[[nodiscard]] OpCost conv_state_cost(const ConvStateShape& shape);

}  // namespace kvfathom
