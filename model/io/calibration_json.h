// The kvfathom.calibration/1 document: a Calibration as data/calibrations and users keep it.
#pragma once

#include <string>
#include <string_view>

#include "model/latency/calibration.h"

namespace kvfathom {

/// The document, one line per class. Times in seconds, rates per second; absent terms are left out.
[[nodiscard]] std::string calibration_document(const Calibration& calibration);

/// The inverse. Unknown or missing fields, ids that are no class and numbers that no law can have
/// are InputErrors.
[[nodiscard]] Calibration read_calibration(const std::string& path);
[[nodiscard]] Calibration read_calibration_text(std::string_view json, const std::string& source);

}  // namespace kvfathom
