// The rule that ends a measurement, on samples that are made up.
#include "calibrate/timing/timing.h"

#include <vector>

#include <gtest/gtest.h>

#include "calibrate/timing/host_timer.h"

namespace kvfathom {
namespace {

TEST(Timing, MedianAndItsIntervalAreOrderStatistics) {
  std::vector<double> samples;
  for (int i = 25; i > 0; --i) {
    samples.push_back(i);
  }
  const Timing timing = summarise(samples);
  EXPECT_EQ(timing.median_s, 13.0);
  EXPECT_EQ(timing.low_s, 9.0) << "0.98 sqrt(25) = 4.9: four ranks to either side";
  EXPECT_EQ(timing.high_s, 17.0);
  EXPECT_DOUBLE_EQ(timing.interval, 4.0 / 13.0);
  EXPECT_EQ(timing.n_samples, 25);
}

TEST(Timing, AWildSampleMovesNothing) {
  std::vector<double> samples(40, 1.0);
  samples[7] = 1000.0;
  const Timing timing = summarise(samples);
  EXPECT_EQ(timing.median_s, 1.0);
  EXPECT_EQ(timing.interval, 0.0);
  EXPECT_EQ(timing.drift, 0.0);
}

TEST(Timing, DriftIsTheHalvesApart) {
  std::vector<double> samples(20, 1.0);
  samples.resize(40, 1.25);
  EXPECT_DOUBLE_EQ(summarise(samples).drift, 0.2);
}

TEST(Timing, OneSampleIsEnoughToSummarise) {
  const Timing timing = summarise({2.0});
  EXPECT_EQ(timing.median_s, 2.0);
  EXPECT_EQ(timing.low_s, 2.0);
  EXPECT_EQ(timing.high_s, 2.0);
}

TEST(Timing, ConvergedNeedsSamplesTimeANarrowIntervalAndNoDrift) {
  const TimerOptions options;
  const Timing good{.interval = 0.001, .drift = 0.001, .n_samples = 15};
  EXPECT_TRUE(has_converged(good, 0.05, options));
  EXPECT_FALSE(has_converged(good, 0.049, options));
  Timing bad = good;
  bad.n_samples = 14;
  EXPECT_FALSE(has_converged(bad, 1.0, options));
  bad = good;
  bad.interval = 0.005;
  EXPECT_FALSE(has_converged(bad, 1.0, options));
  bad = good;
  bad.drift = 0.01;
  EXPECT_FALSE(has_converged(bad, 1.0, options));
}

TEST(Timing, ASampleIsLongEnoughAndGoesRoundAllSets) {
  const TimerOptions options;
  EXPECT_EQ(runs_per_sample(1.0, 1, options), 1);
  EXPECT_EQ(runs_per_sample(100e-6, 1, options), 3);
  EXPECT_EQ(runs_per_sample(100e-6, 2, options), 4);
  EXPECT_EQ(runs_per_sample(1.0, 7, options), 7);
  EXPECT_EQ(runs_per_sample(1e-9, 1, options), options.max_runs_per_sample);
}

TEST(HostTimer, RunsOnEverySetInTurn) {
  std::vector<int> runs(3);
  int last = 2;
  const Timing timing = time_on_host(
      [&](int set) {
        EXPECT_EQ(set, (last + 1) % 3);
        last = set;
        ++runs[set];
      },
      3,
      {.min_sample_s = 0.0, .min_samples = 4, .min_total_s = 0.0, .max_total_s = 0.01});
  EXPECT_EQ(timing.runs_per_sample, 3);
  EXPECT_GE(runs[2], timing.n_samples);
}

TEST(HostTimer, AYardstickTakesTurnsWithTheRun) {
  int n_runs = 0;
  int n_yardsticks = 0;
  const PairedTiming timing = time_beside([&](int) { ++n_runs; },
                                          1,
                                          [&](int) { ++n_yardsticks; },
                                          2,
                                          {.min_sample_s = 0.0,
                                           .max_runs_per_sample = 8,
                                           .min_samples = 4,
                                           .min_total_s = 0.0,
                                           .max_total_s = 0.01});
  EXPECT_EQ(timing.run.n_samples, timing.yardstick.n_samples);
  EXPECT_GE(n_runs, timing.run.n_samples);
  EXPECT_GE(n_yardsticks, timing.run.n_samples);
  EXPECT_LE(timing.ratio_low, timing.ratio);
  EXPECT_LE(timing.ratio, timing.ratio_high);
}

}  // namespace
}  // namespace kvfathom
