// Runs the planned cases under Google Benchmark: verified, timed by our own stop rule, and held
// against the memory's read bandwidth, measured in the same run.
#pragma once

#include <vector>

#include "bench/kernels/options.h"

namespace kvfathom::bench {

/// The device's read bandwidth, bytes per second; the CPU's is measured beside each case.
[[nodiscard]] double device_read_bandwidth(const Options& options);

/// Enters the cases with Google Benchmark. `device_read` is 0 where no case needs it. Both
/// arguments must live until the benchmarks have run.
void register_cases(const std::vector<PlannedCase>& cases,
                    const Options& options,
                    double device_read);

/// Whether a result of this run was wrong.
[[nodiscard]] bool any_wrong();

}  // namespace kvfathom::bench
