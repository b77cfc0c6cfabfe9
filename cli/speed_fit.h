// An engine's parameters from measured speeds, with the error on rows that were held out.
#pragma once

#include <string>
#include <vector>

#include "cli/speed_replay.h"
#include "model/latency/engine_law.h"

namespace kvfathom::cli {

/// A row as the fit without its group predicted it.
struct HeldOut {
  const SpeedRow* row = nullptr;
  std::string device_class;
  bool device_known = true;
  double log_ratio = 0.0;  ///< log(predicted / measured time)
};

struct SpeedFit {
  EngineSpeed speed;
  std::vector<HeldOut> held_out;  ///< each row twice: device and model, or device class, left out
};

/// Fits the rows of one engine: a robust fit of log times, factors shrunk towards 1, ten folds by
/// (device, model) and one by class of device, intervals by resampling the groups. Rows that cannot
/// be priced are left out.
[[nodiscard]] SpeedFit fit_speed(const std::string& engine, const std::vector<SpeedRow>& rows);

/// What is assumed of an engine that no row was seen of.
[[nodiscard]] EngineSpeed initial_speed(const std::string& engine);

}  // namespace kvfathom::cli
