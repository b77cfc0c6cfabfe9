// The device timer of a build without CUDA.
#include "calibrate/timing/device_timer.h"

#include "kernels/common/error.h"

namespace kvfathom {

Timing time_on_device(const DeviceRun&, int, const TimerOptions&, Enqueue) {
  throw kernels::NoDevice(kernels::device_missing());
}

}  // namespace kvfathom
