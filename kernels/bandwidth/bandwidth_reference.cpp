// What the bandwidth kernels must leave behind, a word at a time.
#include "kernels/bandwidth/bandwidth.h"

namespace kvfathom::kernels {

std::uint32_t bandwidth_reference(const BandwidthParams& params) {
  std::uint32_t checksum = 0;
  for (std::int64_t i = 0; i < params.n_words; ++i) {
    switch (params.op) {
      case BandwidthOp::read:
        checksum += params.source[i];
        break;
      case BandwidthOp::write:
        params.destination[i] = params.value + static_cast<std::uint32_t>(i);
        break;
      case BandwidthOp::copy:
        params.destination[i] = params.source[i];
        break;
      case BandwidthOp::fill:
        params.destination[i] = params.value;
        break;
    }
  }
  return checksum;
}

}  // namespace kvfathom::kernels
