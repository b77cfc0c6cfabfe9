// Moving a cache between the host's memory and the device's: what offloading and fetching cost.
//
// A cache leaves and returns in pieces (a layer's pages, a sequence's rows). Each piece as a copy
// of its own pays a call of microseconds, so small pieces are gathered by a kernel that reads or
// writes pinned host memory itself. `copies` and `gather` do the same, and which is faster is
// measured.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/common/device.h"

namespace kvfathom::kernels {

/// One run of bytes, contiguous on both sides. Offsets and sizes are in bytes.
struct TransferPiece {
  std::int64_t source_offset = 0;
  std::int64_t destination_offset = 0;
  std::int64_t bytes = 0;
};

/// Either direction: on the device one of `source` and `destination` is pinned host memory.
struct HostTransferParams {
  const std::byte* source = nullptr;
  std::byte* destination = nullptr;
  const TransferPiece* pieces = nullptr;  ///< [n_pieces], on the host; none overlaps another there
  int n_pieces = 0;
};

/// The sum of all pieces. Throws UnsupportedShape where one is negative.
[[nodiscard]] std::int64_t transfer_bytes(const HostTransferParams& params);

/// The definition: a byte at a time, on host buffers.
void host_transfer_reference(const HostTransferParams& params);

/// The same on the CPU with n_threads threads (0: all), each an equal share of the bytes.
void host_transfer_cpu(const HostTransferParams& params, int n_threads = 0);

/// The same by the device's copy engines: one asynchronous copy a piece. Throws NoDevice,
/// DeviceError or UnsupportedShape.
void host_transfer_copies(const HostTransferParams& params, Stream stream);

/// Threads of a block of the launch below.
inline constexpr int kGatherThreads = 256;
/// The same pieces, none longer than what keeps one warp busy for a while: what a gather is to be
/// launched with, so that its warps share the work.
[[nodiscard]] std::vector<TransferPiece> cut_for_gather(std::span<const TransferPiece> pieces);
/// Blocks that keep the bus busy and leave the rest of the device to others.
[[nodiscard]] int host_transfer_gather_blocks(const HostTransferParams& params,
                                              const DeviceInfo& device);
/// The same by one kernel of `n_blocks` blocks. Both buffers, every offset and every size must be
/// multiples of 16 bytes. `device_pieces` are `params.pieces` on the device. Throws NoDevice,
/// DeviceError or UnsupportedShape.
void host_transfer_gather_launch(const HostTransferParams& params,
                                 const TransferPiece* device_pieces,
                                 int n_blocks,
                                 Stream stream);

}  // namespace kvfathom::kernels
