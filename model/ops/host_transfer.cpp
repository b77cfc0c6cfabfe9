#include "model/ops/host_transfer.h"

#include <cmath>

namespace kvfathom {

OpCost host_transfer_cost(const HostTransferShape& shape) {
  const Bytes all = static_cast<double>(shape.n_pieces) * shape.bytes_per_piece;
  return OpCost{.read = all,
                .written = all,
                .flops = Flops(0),
                .launches = shape.gathered ? 1 : shape.n_pieces};
}

OpCost file_read_cost(const FileReadShape& shape) {
  return OpCost{.read = shape.past_page_cache ? Bytes(0) : shape.size,
                .written = shape.size,
                .flops = Flops(0),
                .launches = static_cast<int>(std::ceil(shape.size / shape.bytes_per_request))};
}

}  // namespace kvfathom
