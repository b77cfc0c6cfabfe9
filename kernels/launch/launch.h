// What it costs to start nothing: the gap between kernels of a stream or a graph, and on the CPU
// between parallel regions. Small batches are made of little else.
#pragma once

#include <cstdint>

#include "kernels/common/device.h"

namespace kvfathom::kernels {

struct EmptyLaunchParams {
  int n_launches = 0;
  /// Where not null, each launch adds one: for tests. Null: the kernels do nothing at all.
  std::uint32_t* counter = nullptr;
};

/// Runs n_launches empty parallel regions of n_threads threads (0: all), one after the other.
void empty_launch_cpu(const EmptyLaunchParams& params, int n_threads = 0);
/// Enqueues n_launches kernels of one warp on `stream`. Throws NoDevice or DeviceError.
void empty_launch_launch(const EmptyLaunchParams& params, Stream stream = nullptr);

}  // namespace kvfathom::kernels
