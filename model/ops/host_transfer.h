// What moving bytes between the host's memory and the device's, and out of a file, asks for.
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

struct FileReadShape {
  Bytes size;
  Bytes bytes_per_request;
  bool past_page_cache = false;  ///< from the drive straight into the buffer
};

/// What the host's memory does: through the page cache every byte is read there and written to the
/// buffer, past it the drive writes and memory reads nothing. `launches` are the requests.
[[nodiscard]] OpCost file_read_cost(const FileReadShape& shape);

}  // namespace kvfathom
