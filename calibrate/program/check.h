// What a calibration predicts of whole decode steps, beside what they take.
#pragma once

#include <iosfwd>

#include "model/latency/calibration.h"

namespace kvfathom::calibrate {

/// Small models under several cache types and contexts: a table of milliseconds a token, predicted
/// and measured on the CPU, and the median of the errors.
void check_calibration(std::ostream& out, const Calibration& calibration, int n_threads);

}  // namespace kvfathom::calibrate
