// Where a kernel runs, for cases that hold the CPU's version and the device's to one reference.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/common/device.h"

namespace kvfathom::kernels {

enum class Where : std::uint8_t { cpu, device };

/// The CPU, and the device where there is one.
inline std::vector<Where> places() {
  return device_missing().empty() ? std::vector<Where>{Where::cpu, Where::device}
                                  : std::vector<Where>{Where::cpu};
}

}  // namespace kvfathom::kernels
