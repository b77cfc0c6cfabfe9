// Times work on the device: CUDA graphs of many runs, so that no launch gap is measured (or, for
// the gap itself, launches one by one), on input sets that take turns, so that no cache answers;
// samples taken at a throttled clock are left out.
#pragma once

#include <cstdint>
#include <functional>

#include "calibrate/timing/timing.h"
#include "kernels/common/device.h"

namespace kvfathom {

/// Enqueues one run on input set `set`. It may be recorded into a graph: it may launch, and nothing
/// else.
using DeviceRun = std::function<void(int set, kernels::Stream stream)>;

/// How the runs of a sample reach the device.
enum class Enqueue : std::uint8_t {
  graph,   ///< recorded once, replayed as a whole
  stream,  ///< by the host, one launch after the other, while the device already works
};

/// Throws kernels::NoDevice or kernels::DeviceError.
[[nodiscard]] Timing time_on_device(const DeviceRun& run,
                                    int n_sets,
                                    const TimerOptions& options = {},
                                    Enqueue enqueue = Enqueue::graph);

}  // namespace kvfathom
