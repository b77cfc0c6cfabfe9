#include "calibrate/timing/host_timer.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

namespace kvfathom {
namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Runs on sets in turn, and remembers whose turn it is.
class Rotation {
 public:
  Rotation(HostRun run, int n_sets) : run_(std::move(run)), n_sets_(n_sets) {}

  /// Seconds of one of n runs back to back.
  double time(int n) {
    const double started_s = now_s();
    for (int i = 0; i < n; ++i) {
      run_(next_);
      next_ = (next_ + 1) % n_sets_;
    }
    return (now_s() - started_s) / n;
  }

  /// First touches everything, then measures; a handful of sets tells enough.
  double warm_up() {
    const int n = std::min(std::max(2, n_sets_), 8);
    time(n);
    return time(n);
  }

 private:
  HostRun run_;
  int n_sets_;
  int next_ = 0;
};

}  // namespace

Timing time_on_host(const HostRun& run, int n_sets, const TimerOptions& options) {
  Rotation rotation(run, n_sets);
  const int n_runs = runs_per_sample(rotation.warm_up(), n_sets, options);
  std::vector<double> samples_s;
  Timing timing;
  double total_s = 0.0;
  do {
    samples_s.push_back(rotation.time(n_runs));
    total_s += samples_s.back() * n_runs;
    timing = summarise(samples_s);
    timing.converged = has_converged(timing, total_s, options);
  } while (!timing.converged && total_s < options.max_total_s);
  timing.runs_per_sample = n_runs;
  return timing;
}

PairedTiming time_beside(const HostRun& run,
                         int n_sets,
                         const HostRun& yardstick,
                         int n_yardstick_sets,
                         const TimerOptions& options) {
  Rotation rotation(run, n_sets);
  Rotation beside(yardstick, n_yardstick_sets);
  const int n_runs = runs_per_sample(rotation.warm_up(), n_sets, options);
  const int n_yardsticks = runs_per_sample(beside.warm_up(), n_yardstick_sets, options);
  std::vector<double> run_s;
  std::vector<double> yardstick_s;
  std::vector<double> ratios;
  Timing ratio;
  double total_s = 0.0;
  do {
    run_s.push_back(rotation.time(n_runs));
    yardstick_s.push_back(beside.time(n_yardsticks));
    ratios.push_back(yardstick_s.back() / run_s.back());
    total_s += run_s.back() * n_runs + yardstick_s.back() * n_yardsticks;
    ratio = summarise(ratios);
    ratio.converged = has_converged(ratio, total_s, options);
  } while (!ratio.converged && total_s < options.max_total_s);

  PairedTiming timing{.run = summarise(run_s),
                      .yardstick = summarise(yardstick_s),
                      .ratio = ratio.median_s,
                      .ratio_low = ratio.low_s,
                      .ratio_high = ratio.high_s};
  timing.run.runs_per_sample = n_runs;
  timing.yardstick.runs_per_sample = n_yardsticks;
  timing.run.converged = timing.yardstick.converged = ratio.converged;
  return timing;
}

}  // namespace kvfathom
