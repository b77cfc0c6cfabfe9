#include "kernels/host_transfer/host_transfer.h"

#include <algorithm>
#include <string>

#include "kernels/common/error.h"

namespace kvfathom::kernels {
namespace {

/// A load from the host takes some 1.5 us, so a bus of 55 GB/s wants 80 KB in flight: 16 blocks of
/// 8 warps with 2 KiB each hold 256 KiB, and most multiprocessors stay free.
constexpr int kBlocksForTheBus = 16;
constexpr int kWarpsPerBlock = kGatherThreads / 32;
/// Eight turns of a warp.
constexpr std::int64_t kLongestPiece = 16384;

}  // namespace

std::int64_t transfer_bytes(const HostTransferParams& params) {
  std::int64_t sum = 0;
  for (int i = 0; i < params.n_pieces; ++i) {
    const std::int64_t bytes = params.pieces[i].bytes;
    if (bytes < 0) {
      throw UnsupportedShape("piece " + std::to_string(i) + " has " + std::to_string(bytes) +
                             " bytes");
    }
    sum += bytes;
  }
  return sum;
}

std::vector<TransferPiece> cut_for_gather(std::span<const TransferPiece> pieces) {
  std::vector<TransferPiece> cut;
  for (const TransferPiece& piece : pieces) {
    for (std::int64_t done = 0; done < piece.bytes; done += kLongestPiece) {
      cut.push_back(TransferPiece{.source_offset = piece.source_offset + done,
                                  .destination_offset = piece.destination_offset + done,
                                  .bytes = std::min(kLongestPiece, piece.bytes - done)});
    }
  }
  return cut;
}

int host_transfer_gather_blocks(const HostTransferParams& params, const DeviceInfo& device) {
  const int useful = (params.n_pieces + kWarpsPerBlock - 1) / kWarpsPerBlock;
  const int most = std::max(1, std::min(kBlocksForTheBus, device.n_multiprocessors));
  return std::clamp(useful, 1, most);
}

}  // namespace kvfathom::kernels
