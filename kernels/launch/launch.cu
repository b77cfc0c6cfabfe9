#include "kernels/launch/launch.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {
namespace {

SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(simt::kWarpSize) empty_kernel(std::uint32_t* counter) {
  if (counter != nullptr && simt::thread_idx().x == 0) {
    static_cast<void>(simt::atomic_add(counter, 1U));
  }
}

}  // namespace

void empty_launch_launch(const EmptyLaunchParams& params, Stream stream) {
  static_cast<void>(device());
  for (int i = 0; i < params.n_launches; ++i) {
    simt::launch(empty_kernel, 1, simt::kWarpSize, 0, stream, params.counter);
  }
}

}  // namespace kvfathom::kernels
