// Times cases for a calibration: the machine's ceilings, whether it is quiet, and single points.
#pragma once

#include <string>

#include "calibrate/cases/case.h"
#include "calibrate/timing/timing.h"
#include "model/latency/calibration.h"

namespace kvfathom::calibrate {

/// How long a point may take.
[[nodiscard]] TimerOptions timer_options(bool full);

/// Seconds of one call. MachineError where the kernel's tiny shape gives a wrong result.
[[nodiscard]] double measure(const bench::KernelBench& kernel,
                             const bench::Request& request,
                             const TimerOptions& options);

/// Bytes per second that a read of more than the caches hold reaches.
[[nodiscard]] double read_bandwidth(bench::Place place, int n_threads, const TimerOptions& options);

[[nodiscard]] Ceilings measure_ceilings(bench::Place place,
                                        int n_threads,
                                        const TimerOptions& options);

/// Why times taken now would be off: load, or threads that wait for others; empty: quiet.
[[nodiscard]] std::string busy(int n_threads);

}  // namespace kvfathom::calibrate
