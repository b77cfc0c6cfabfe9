// Times CPU work, next to a yardstick: on a machine that others use too, the ratio of two things
// measured in turns holds where neither time does.
#pragma once

#include <functional>

#include "calibrate/timing/timing.h"

namespace kvfathom {

/// Runs once on input set `set`.
using HostRun = std::function<void(int set)>;

[[nodiscard]] Timing time_on_host(const HostRun& run, int n_sets, const TimerOptions& options = {});

struct PairedTiming {
  Timing run;
  Timing yardstick;
  double ratio = 0.0;  ///< yardstick's time over the run's, in the median of the pairs
  double ratio_low = 0.0;
  double ratio_high = 0.0;  ///< its 95 % interval
};

/// One sample of the yardstick follows each sample of the run; the yardstick has
/// input sets of its own. Converged when the ratio is.
[[nodiscard]] PairedTiming time_beside(const HostRun& run,
                                       int n_sets,
                                       const HostRun& yardstick,
                                       int n_yardstick_sets,
                                       const TimerOptions& options = {});

}  // namespace kvfathom
