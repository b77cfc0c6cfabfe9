// Starting kernels that do nothing.
#pragma once

#include "model/ops/op_cost.h"

namespace kvfathom {

/// Nothing is moved and nothing computed: what it costs is the launches.
[[nodiscard]] inline OpCost empty_launch_cost(int n_launches) {
  return OpCost{.launches = n_launches};
}

}  // namespace kvfathom
