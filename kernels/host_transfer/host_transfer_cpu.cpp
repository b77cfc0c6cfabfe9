// The transfer within the host's memory: libc's copy, shared out among threads by bytes.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/common/parallel.h"
#include "kernels/host_transfer/host_transfer.h"

namespace kvfathom::kernels {

void host_transfer_cpu(const HostTransferParams& params, int n_threads) {
  const std::int64_t n_bytes = transfer_bytes(params);
  if (n_bytes == 0) {
    return;
  }
  // [n_pieces + 1] bytes before each piece: where a thread's share begins among the pieces.
  std::vector<std::int64_t> bytes_before = {0};
  for (int i = 0; i < params.n_pieces; ++i) {
    bytes_before.push_back(bytes_before.back() + params.pieces[i].bytes);
  }
  parallel_shares(n_threads, n_bytes, [&](int, std::int64_t first, std::int64_t last) {
    auto i = std::upper_bound(bytes_before.begin(), bytes_before.end(), first) -
             bytes_before.begin() - 1;
    for (std::int64_t at = first; at < last; ++i) {
      const TransferPiece& piece = params.pieces[i];
      const std::int64_t skipped = at - bytes_before[i];
      const std::int64_t n = std::min(piece.bytes - skipped, last - at);
      if (n > 0) {  // an empty piece may stand anywhere, and its offsets mean nothing
        std::memcpy(params.destination + piece.destination_offset + skipped,
                    params.source + piece.source_offset + skipped,
                    n);
      }
      at += n;
    }
  });
}

}  // namespace kvfathom::kernels
