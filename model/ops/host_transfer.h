// What moving bytes between the host's memory and the device's asks for.
#pragma once

#include "model/ops/op_cost.h"

namespace kvfathom {

struct HostTransferShape {
  Bytes bytes_per_piece;
  int n_pieces = 1;
  bool gathered = false;  ///< by one kernel, instead of a copy for each piece
};

/// Every byte crosses the bus once: read on one side, written on the other. `launches` are the
/// calls, each of which the bus waits for.
[[nodiscard]] OpCost host_transfer_cost(const HostTransferShape& shape);

}  // namespace kvfathom
