// A measured run as the steps that it was made of, priced by an engine's laws.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/speed_truth.h"
#include "model/latency/engine_law.h"

namespace kvfathom::cli {

/// One step, and how many like it the run had.
struct ReplayStep {
  std::vector<Op> ops;
  double n_times = 1.0;
  std::int64_t n_stages = 1;  ///< GPUs that work on different chunks at a time, ...
  double n_in_flight = 1.0;   ///< ... and how many of them there are
};

/// A row ready to be priced as often as a fit asks.
struct Replay {
  const SpeedRow* row = nullptr;
  const HardwareSpec* device = nullptr;  ///< null where the row is refused
  EngineRun run;
  std::string device_class;
  std::vector<ReplayStep> steps;
  std::int64_t n_layers = 0;
  double measured_s = 0.0;           ///< of all the steps
  std::string refused;               ///< why the row cannot be priced; empty: it can
  std::unique_ptr<EngineLaws> laws;  ///< of the engine's parameters alone, for fitting them
};

/// Models and devices are read once each. `speed_of` gives an engine's parameters, or nothing where
/// there are none; what it points to may change between calls of predicted_time.
class Replays {
 public:
  template <class SpeedOf>
  Replays(const std::vector<SpeedRow>& rows, SpeedOf speed_of) {
    for (const SpeedRow& row : rows) {
      add(row, speed_of(row.engine));
    }
  }

  [[nodiscard]] std::vector<Replay>& all() { return all_; }
  [[nodiscard]] const std::vector<Replay>& all() const { return all_; }

 private:
  void add(const SpeedRow& row, const EngineSpeed* speed);

  std::vector<Replay> all_;
};

/// What the run took by these laws: the engine's parameters as they are now (`replay.laws`), or
/// what `speed` prices by.
[[nodiscard]] Estimate predicted_time(const Replay& replay, const LawSource& laws);

}  // namespace kvfathom::cli
