// The laws by which a query's operations are priced: the best that is known of its machine.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/query.h"
#include "model/latency/calibration.h"
#include "model/latency/engine_law.h"
#include "model/latency/step_ops.h"
#include "model/latency/step_time.h"

namespace kvfathom::cli {

/// What is known of speeds, read when it is asked for and kept.
class SpeedData {
 public:
  /// Published kernels of the device (data/calibrations) where there are some and the engine runs
  /// such kernels; else shares of the data sheet fitted to the engine's own published speeds
  /// (data/engines/speed), if devices of this class were among them; else published kernels of the
  /// nearest device of its architecture, scaled; else what the engine's devices have in common, or
  /// assumed shares. InputError where the bandwidth is not known;
  /// Unsupported for a prompt where no peak rate is. `host`: what is left there runs on; may be
  /// empty.
  [[nodiscard]] std::unique_ptr<LawSource> laws(const EngineInfo& engine,
                                                const HardwareSpec& device,
                                                const std::optional<HardwareSpec>& host,
                                                const EngineRun& run);

 private:
  [[nodiscard]] const EngineSpeed& speed(const std::string& path);
  /// The published kernels of the device, the preferred first: serving engines' from the newest
  /// version on, then the collective operations of libraries where the device has links of its own.
  [[nodiscard]] const std::vector<Calibration>& published_kernels(const HardwareSpec& device);
  /// Those of the device of the same architecture whose bandwidth is nearest, scaled to this one.
  [[nodiscard]] std::vector<Calibration> scaled_kernels(const HardwareSpec& device);

  std::map<std::string, EngineSpeed> speeds_;                ///< by path
  std::map<std::string, std::vector<Calibration>> kernels_;  ///< by the device's id
};

/// The laws of a query: its calibration's where it has one, else as SpeedData finds them.
/// InputError where no device was given.
[[nodiscard]] std::unique_ptr<LawSource> laws_of(const Query& query, Phase phase);

}  // namespace kvfathom::cli
