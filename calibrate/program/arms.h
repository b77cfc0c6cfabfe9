// The ways to bring a cached prefix back, run on this machine's CPU.
#pragma once

#include <functional>

#include "calibrate/prefix_arms.h"

namespace kvfathom::calibrate {

/// Every arm at every length, each told to `sink` as soon as it is known. Few layers run, in turns
/// so that no cache answers, and stand for all: the layers are equal.
void measure_arms(const ArmsRequest& request, const std::function<void(const ArmTime&)>& sink);

}  // namespace kvfathom::calibrate
