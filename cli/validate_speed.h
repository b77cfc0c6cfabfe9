// kvfathom validate --speed: predicted times against measured ones.
#pragma once

#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/speed_replay.h"

namespace kvfathom::cli {

/// One measured run, predicted or refused.
struct SpeedOutcome {
  SpeedRow row;
  std::string device_class;
  std::string refused;  ///< why there is no prediction; empty: there is one
  Estimate predicted_s;
  double measured_s = 0.0;

  /// Of the time, signed, relative to the measured one.
  [[nodiscard]] double error() const { return predicted_s.value / measured_s - 1.0; }
  [[nodiscard]] bool covered() const {
    return predicted_s.low <= measured_s && measured_s <= predicted_s.high;
  }
};

/// Errors of a set of outcomes.
struct SpeedSummary {
  std::string by;    ///< "phase", "engine", "device class"
  std::string name;  ///< with the phase: "llama.cpp, decode"
  std::int64_t n = 0;
  std::int64_t refused = 0;
  double median_abs_error = 0.0;
  double p90_abs_error = 0.0;
  double bias = 0.0;         ///< median of the signed errors
  double share_under = 0.0;  ///< predicted to take less time than it did
  double worst_under = 0.0;  ///< the largest of these errors
  double share_covered = 0.0;
};

/// Every row by the parameters in `speeds`.
[[nodiscard]] std::vector<SpeedOutcome> replay_speeds(const std::vector<SpeedRow>& rows,
                                                      const std::vector<EngineSpeed>& speeds);

/// Every row by what `speed` prices it by: published kernels first for serving engines. Engines
/// without parameters in `speeds` are refused.
[[nodiscard]] std::vector<SpeedOutcome> predict_speeds(const std::vector<SpeedRow>& rows,
                                                       const std::vector<EngineSpeed>& speeds);

[[nodiscard]] std::vector<SpeedSummary> summarise(const std::vector<SpeedOutcome>& outcomes);

/// data/engines/speed/*.json, sorted by name.
[[nodiscard]] std::vector<EngineSpeed> read_engine_speeds();

/// The command: prints its table or its JSON.
[[nodiscard]] int validate_speed(const std::string& folder, Console& console);

}  // namespace kvfathom::cli
