// A device before Ampere, for tests of what kernels do without tensor cores for bf16.
#pragma once

#include "kernels/common/device.h"
#include "kernels/simt/emulator_control.h"

namespace kvfathom::kernels {

/// As long as this lives, the emulated device is an sm_75. A real one cannot be another.
class PretendedSm75 {
 public:
  PretendedSm75() {
    DeviceInfo turing = device();
    turing.name = "an sm_75";
    turing.compute_capability = 75;
    turing.shared_bytes_per_block = 64 * 1024;
    simt::set_emulated_device(turing);
  }
  ~PretendedSm75() { simt::set_emulated_device({}); }
  PretendedSm75(const PretendedSm75&) = delete;
  PretendedSm75& operator=(const PretendedSm75&) = delete;
};

}  // namespace kvfathom::kernels
