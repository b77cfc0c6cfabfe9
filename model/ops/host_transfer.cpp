#include "model/ops/host_transfer.h"

namespace kvfathom {

OpCost host_transfer_cost(const HostTransferShape& shape) {
  const Bytes all = static_cast<double>(shape.n_pieces) * shape.bytes_per_piece;
  return OpCost{.read = all,
                .written = all,
                .flops = Flops(0),
                .launches = shape.gathered ? 1 : shape.n_pieces};
}

}  // namespace kvfathom
