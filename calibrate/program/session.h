// One calibration from start to end: measure what the journal lacks, fit, and say how well.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "calibrate/program/plan.h"
#include "model/latency/calibration.h"

namespace kvfathom::calibrate {

struct SessionSettings {
  PlanSettings plan;
  bool anyway = false;        ///< measure although the machine is busy
  std::filesystem::path out;  ///< of the document; empty: where calibrations are kept
};

/// "amd-epyc": the device's name as a file's.
[[nodiscard]] std::string file_name_of(const std::string& device);

/// The file that is written, its folder made. MachineError where no home is known.
[[nodiscard]] std::filesystem::path output_path(const SessionSettings& settings,
                                                const std::string& device);

/// The device's name as its driver says it.
[[nodiscard]] std::string device_name(bench::Place place);

/// Progress goes to stderr, what is measured to a journal beside `path`, the document to `path`.
/// MachineError where the machine is busy, unless it is to be measured anyway.
[[nodiscard]] Calibration run_session(const SessionSettings& settings,
                                      const std::filesystem::path& path);

}  // namespace kvfathom::calibrate
