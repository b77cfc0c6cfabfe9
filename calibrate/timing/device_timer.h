// Times work on the device: CUDA graphs of many runs, so that no launch gap is measured, on input
// sets that take turns, so that no cache answers; samples taken at a throttled clock are left out.
#pragma once

#include <functional>

#include "calibrate/timing/timing.h"
#include "kernels/common/device.h"

namespace kvfathom {

/// Enqueues one run on input set `set`. It is recorded into a graph: it may launch, and nothing
/// else.
using DeviceRun = std::function<void(int set, kernels::Stream stream)>;

/// Throws kernels::NoDevice or kernels::DeviceError.
[[nodiscard]] Timing time_on_device(const DeviceRun& run,
                                    int n_sets,
                                    const TimerOptions& options = {});

}  // namespace kvfathom
