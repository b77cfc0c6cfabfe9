// What a transfer must leave behind, a byte at a time.
#include "kernels/host_transfer/host_transfer.h"

namespace kvfathom::kernels {

void host_transfer_reference(const HostTransferParams& params) {
  for (int i = 0; i < params.n_pieces; ++i) {
    const TransferPiece& piece = params.pieces[i];
    for (std::int64_t byte = 0; byte < piece.bytes; ++byte) {
      params.destination[piece.destination_offset + byte] =
          params.source[piece.source_offset + byte];
    }
  }
}

}  // namespace kvfathom::kernels
