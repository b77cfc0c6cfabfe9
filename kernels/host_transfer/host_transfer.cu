// Transfers between pinned host memory and the device: a copy a piece, or one kernel for all.
#include <string>

#include "kernels/common/error.h"
#include "kernels/host_transfer/host_transfer.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {
namespace {

using simt::U32x4;

constexpr std::int64_t kVectorBytes = sizeof(U32x4);
constexpr int kInFlight = 4;
/// Vectors that a warp has on their way at a time.
constexpr std::int64_t kVectorsPerTurn = static_cast<std::int64_t>(simt::kWarpSize) * kInFlight;

/// Moves vectors [first, n_vectors) of one piece, a turn of them at most, with one warp.
SIMT_DEVICE void move_turn(const U32x4* source,
                           U32x4* destination,
                           std::int64_t first,
                           std::int64_t n_vectors) {
  U32x4 v[kInFlight] = {};
  SIMT_UNROLL for (int j = 0; j < kInFlight; ++j) {
    const std::int64_t i = first + j * simt::kWarpSize + simt::lane_id();
    if (i < n_vectors) {
      v[j] = simt::ld_stream<U32x4>(source + i);
    }
  }
  SIMT_UNROLL for (int j = 0; j < kInFlight; ++j) {
    const std::int64_t i = first + j * simt::kWarpSize + simt::lane_id();
    if (i < n_vectors) {
      simt::st(destination + i, v[j]);
    }
  }
}

/// Each warp takes every so-manieth piece.
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kGatherThreads) gather_kernel(const std::byte* source,
                                                                  std::byte* destination,
                                                                  const TransferPiece* pieces,
                                                                  int n_pieces) {
  const auto first_thread = simt::block_idx().x * kGatherThreads + simt::thread_idx().x;
  const auto n_warps = static_cast<int>(simt::grid_dim().x) * (kGatherThreads / simt::kWarpSize);
  for (int p = static_cast<int>(first_thread) / simt::kWarpSize; p < n_pieces; p += n_warps) {
    const auto* from =
        reinterpret_cast<const U32x4*>(source + simt::ld_index(&pieces[p].source_offset));
    auto* to =
        reinterpret_cast<U32x4*>(destination + simt::ld_index(&pieces[p].destination_offset));
    const std::int64_t n_vectors = simt::ld_index(&pieces[p].bytes) / kVectorBytes;
    for (std::int64_t first = 0; first < n_vectors; first += kVectorsPerTurn) {
      move_turn(from, to, first, n_vectors);
    }
  }
}

bool whole_vectors(const HostTransferParams& params, const TransferPiece& piece) {
  const auto source = reinterpret_cast<std::uintptr_t>(params.source) + piece.source_offset;
  const auto destination =
      reinterpret_cast<std::uintptr_t>(params.destination) + piece.destination_offset;
  return source % kVectorBytes == 0 && destination % kVectorBytes == 0 &&
         piece.bytes % kVectorBytes == 0;
}

}  // namespace

void host_transfer_copies(const HostTransferParams& params, Stream stream) {
  static_cast<void>(transfer_bytes(params));  // refuses before anything is enqueued
  for (int i = 0; i < params.n_pieces; ++i) {
    const TransferPiece& piece = params.pieces[i];
    if (piece.bytes > 0) {
      copy_async(params.destination + piece.destination_offset,
                 params.source + piece.source_offset,
                 static_cast<std::size_t>(piece.bytes),
                 stream);
    }
  }
}

void host_transfer_gather_launch(const HostTransferParams& params,
                                 const TransferPiece* device_pieces,
                                 int n_blocks,
                                 Stream stream) {
  if (transfer_bytes(params) == 0) {
    return;
  }
  for (int i = 0; i < params.n_pieces; ++i) {
    if (!whole_vectors(params, params.pieces[i])) {
      throw UnsupportedShape("piece " + std::to_string(i) +
                             " does not begin and end on 16-byte boundaries");
    }
  }
  simt::launch(gather_kernel,
               static_cast<unsigned>(n_blocks),
               kGatherThreads,
               0,
               stream,
               params.source,
               params.destination,
               device_pieces,
               params.n_pieces);
}

}  // namespace kvfathom::kernels
