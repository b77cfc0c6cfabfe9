// What the plain memory operations move: the ceilings that all else is held against.
#pragma once

#include "model/ops/op_cost.h"

namespace kvfathom {

/// Reading leaves a checksum of 4 bytes for each of `n_partial_sums` blocks (0 on a CPU).
[[nodiscard]] OpCost read_cost(Bytes size, int n_partial_sums = 0);
/// Writing and filling alike.
[[nodiscard]] OpCost write_cost(Bytes size);
[[nodiscard]] OpCost copy_cost(Bytes size);

}  // namespace kvfathom
