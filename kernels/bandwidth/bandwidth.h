// The memory's own ceilings: what reading, writing, copying and filling reach, and nothing else.
//
// Every other kernel is held against these, measured in the same run: data sheets promise 7 to 9 %
// more than any kernel gets, and a copy gets less than a read.
#pragma once

#include <cstdint>
#include <string_view>

#include "kernels/common/device.h"

namespace kvfathom::kernels {

enum class BandwidthOp : std::uint8_t {
  read,   ///< every word into a checksum: a read that nothing needs would be left out
  write,  ///< destination[i] = value + i
  copy,   ///< destination[i] = source[i]
  fill,   ///< destination[i] = value
};

inline constexpr BandwidthOp kAllBandwidthOps[] = {
    BandwidthOp::read, BandwidthOp::write, BandwidthOp::copy, BandwidthOp::fill};

[[nodiscard]] std::string_view name(BandwidthOp op);

/// Buffers start on 64-byte boundaries and live where the callee runs.
struct BandwidthParams {
  BandwidthOp op = BandwidthOp::read;
  std::int64_t n_words = 0;               ///< of 4 bytes; a multiple of 4
  const std::uint32_t* source = nullptr;  ///< [n_words]; read and copy
  std::uint32_t* destination = nullptr;   ///< [n_words]; write, copy and fill
  std::uint32_t value = 0;                ///< write and fill
};

/// The definition, on host buffers. Returns what `read` must: the sum of all words modulo 2^32,
/// which no order changes; 0 for the others.
std::uint32_t bandwidth_reference(const BandwidthParams& params);

/// The same on the CPU with n_threads threads (0: all). `write` stores as kernels do, through the
/// caches, which read each line before they change it; `copy` and `fill` store past the caches.
/// Throws UnsupportedShape.
std::uint32_t bandwidth_cpu(const BandwidthParams& params, int n_threads = 0);

/// Threads of a block of the launches below.
inline constexpr int kBandwidthThreads = 256;
/// Blocks that keep the device's memory busy.
[[nodiscard]] int bandwidth_blocks(const BandwidthParams& params, const DeviceInfo& device);

/// The same on the device. `read` leaves one partial sum per block in `partial_sums` [n_blocks],
/// null for the others. Throws NoDevice, DeviceError or UnsupportedShape.
void bandwidth_launch(const BandwidthParams& params,
                      int n_blocks,
                      std::uint32_t* partial_sums,
                      Stream stream);

}  // namespace kvfathom::kernels
