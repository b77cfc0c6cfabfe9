// When a measurement has been repeated often enough, and what it then says.
//
// One sample is the time of several runs back to back, on input sets that take turns: together they
// are larger than the last cache, as the layers of a model are. The median of the samples counts;
// sampling ends when its interval is narrow and it no longer drifts.
#pragma once

#include <vector>

namespace kvfathom {

struct TimerOptions {
  double min_sample_s = 300e-6;   ///< runs are put together until they take this long
  int max_runs_per_sample = 512;  ///< or until there are so many
  int min_samples = 15;           ///< and ...
  double min_total_s = 0.05;      ///< ... this long, before sampling may end;
  double max_total_s = 2.0;       ///< it ends here, converged or not
  double max_interval = 0.005;    ///< half the median's 95 % interval, over the median
  double max_drift = 0.01;        ///< first half's median against the second half's
  double least_clock_share =
      0.9;  ///< device: samples at a lower clock, of the best seen, are left out
};

struct Timing {
  double median_s = 0.0;  ///< of one run
  double low_s = 0.0;     ///< the median's 95 % interval, by order statistics
  double high_s = 0.0;
  double interval = 0.0;  ///< half of it, over the median
  double drift = 0.0;
  int n_samples = 0;
  int n_discarded = 0;
  int runs_per_sample = 0;
  double slowest_clock_mhz = 0.0;  ///< 0 where nothing tells
  double median_clock_mhz = 0.0;
  bool converged = false;
};

/// Needs at least one sample. `samples_s` are in the order of their taking.
[[nodiscard]] Timing summarise(const std::vector<double>& samples_s);

/// Whether samples that have taken `total_s` so far suffice: for `options`, and to be believed.
[[nodiscard]] bool has_converged(const Timing& timing, double total_s, const TimerOptions& options);

/// Runs of `one_run_s` that make a sample: whole rounds over the input sets where they fit.
[[nodiscard]] int runs_per_sample(double one_run_s, int n_sets, const TimerOptions& options);

}  // namespace kvfathom
