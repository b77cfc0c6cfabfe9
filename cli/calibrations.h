// The calibrations of one's own machines, and the program that makes them.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/options.h"
#include "cli/query.h"
#include "model/latency/calibration.h"

namespace kvfathom::cli {

struct OwnCalibration {
  std::filesystem::path path;
  Calibration calibration;
};

/// Those of a folder that can be read, the newest first.
[[nodiscard]] std::vector<OwnCalibration> calibrations_in(const std::filesystem::path& folder);

/// What the query is priced by, if it says FILE or finds the newest of its device: ours are
/// kernels of no engine, so they are found for `reference` and `ideal` alone. A device whose data
/// sheet is not known gets the bandwidth and the rates that were measured.
void choose_calibration(const Options& options, Query& query);

/// The program kvfathom-calibrate, beside this one. MachineError saying how to build it.
[[nodiscard]] std::filesystem::path calibrate_program(const std::filesystem::path& executable);

/// Becomes that program.
[[nodiscard]] int calibrate(const std::vector<std::string>& arguments);

/// The lines that it prints. MachineError where it fails, for a reason that it says itself.
[[nodiscard]] std::vector<std::string> calibrate_output(const std::vector<std::string>& arguments);

}  // namespace kvfathom::cli
