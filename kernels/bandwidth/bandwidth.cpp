#include "kernels/bandwidth/bandwidth.h"

#include <algorithm>

#include "kernels/common/error.h"

namespace kvfathom::kernels {
namespace {

/// 1024 threads fit a multiprocessor of every architecture, so all blocks run at once; four times
/// 16 bytes of each are 64 KiB in flight, twice what the fastest memory needs.
constexpr int kBlocksPerMultiprocessor = 4;

}  // namespace

std::string_view name(BandwidthOp op) {
  switch (op) {
    case BandwidthOp::read:
      return "read";
    case BandwidthOp::write:
      return "write";
    case BandwidthOp::copy:
      return "copy";
    case BandwidthOp::fill:
      return "fill";
  }
  throw UnsupportedShape("a BandwidthOp that has no name");
}

int bandwidth_blocks(const BandwidthParams& params, const DeviceInfo& device) {
  const std::int64_t needed = (params.n_words / 4 + kBandwidthThreads - 1) / kBandwidthThreads;
  const int resident = std::max(1, device.n_multiprocessors * kBlocksPerMultiprocessor);
  return static_cast<int>(std::clamp<std::int64_t>(needed, 1, resident));
}

}  // namespace kvfathom::kernels
