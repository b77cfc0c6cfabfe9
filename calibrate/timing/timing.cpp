#include "calibrate/timing/timing.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace kvfathom {
namespace {

double median_of(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

Timing summarise(const std::vector<double>& samples_s) {
  std::vector<double> sorted = samples_s;
  std::sort(sorted.begin(), sorted.end());
  const int n = static_cast<int>(sorted.size());
  // The rank of the true median is binomial: n / 2 give or take 1.96 sqrt(n) / 2.
  const int reach = static_cast<int>(0.98 * std::sqrt(static_cast<double>(n)));
  Timing timing;
  timing.median_s = sorted[n / 2];
  timing.low_s = sorted[std::max(0, n / 2 - reach)];
  timing.high_s = sorted[std::min(n - 1, n / 2 + reach)];
  timing.interval = (timing.high_s - timing.low_s) / 2.0 / timing.median_s;
  timing.n_samples = n;
  if (n >= 2) {
    const auto half = samples_s.begin() + n / 2;
    timing.drift =
        std::fabs(median_of({samples_s.begin(), half}) / median_of({half, samples_s.end()}) - 1.0);
  }
  return timing;
}

bool has_converged(const Timing& timing, double total_s, const TimerOptions& options) {
  return timing.n_samples >= options.min_samples && total_s >= options.min_total_s &&
         timing.interval < options.max_interval && timing.drift < options.max_drift;
}

int runs_per_sample(double one_run_s, int n_sets, const TimerOptions& options) {
  const double needed = std::ceil(options.min_sample_s / std::max(one_run_s, 1e-9));
  const int runs =
      static_cast<int>(std::clamp(needed, 1.0, static_cast<double>(options.max_runs_per_sample)));
  return std::min((runs + n_sets - 1) / n_sets * n_sets, options.max_runs_per_sample);
}

}  // namespace kvfathom
