// Kernels measured on one device, as they would be on another of its architecture.
#pragma once

#include "model/hardware/hardware_spec.h"
#include "model/latency/calibration.h"

namespace kvfathom {

/// Rates in the ratio of the data sheets: reading by the memory's bandwidth, arithmetic by the peak
/// of the class's format, collectives by the links between devices; fixed costs and those of a wave
/// stay. What cannot be scaled (a data sheet is silent, a device has no links) is left out. Every
/// class is `modelled` at best.
[[nodiscard]] Calibration scaled(Calibration calibration,
                                 const HardwareSpec& from,
                                 const HardwareSpec& to);

}  // namespace kvfathom
