// A calibration as tables.
#pragma once

#include <iosfwd>

#include "model/latency/calibration.h"

namespace kvfathom::calibrate {

void print_calibration(std::ostream& out, const Calibration& calibration);

/// Classes of both: bandwidth, rate and fixed cost, old and new, and the median ratio of the times
/// that the two laws give at the points of the new one.
void print_comparison(std::ostream& out, const Calibration& before, const Calibration& now);

}  // namespace kvfathom::calibrate
