#include "calibrate/fit/fit.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>

#include <gtest/gtest.h>

namespace kvfathom {
namespace {

const Law kTruth{.fixed = Seconds(8e-6),
                 .wave = Seconds(1.5e-6),
                 .bandwidth = BytesPerSecond(3e12),
                 .flops = FlopsPerSecond(6e14),
                 .p = 2.5};

/// Points of a law with log-normal noise; every twentieth is off by a factor of five.
std::vector<CalibrationPoint> synthetic(
    const Law& law, int n, double noise, unsigned seed, bool outliers = false) {
  std::mt19937_64 generator(seed);
  std::uniform_real_distribution<double> share(0.0, 1.0);
  std::normal_distribution<double> normal(0.0, noise);
  std::vector<CalibrationPoint> points;
  for (int i = 0; i < n; ++i) {
    const double bytes = std::pow(10.0, 6.0 + 3.5 * share(generator));
    const Work work{.bytes = Bytes(bytes),
                    .flops = Flops(bytes * std::pow(10.0, 4.0 * share(generator))),
                    .waves = std::floor(1.0 + 60.0 * share(generator))};
    const double wild = outliers && i % 20 == 0 ? 5.0 : 1.0;
    points.push_back({work, time(law, work) * std::exp(normal(generator)) * wild});
  }
  return points;
}

FitSettings all_terms() {
  return {.terms = {.wave = true, .flops = true, .p = true}};
}

TEST(FitLaw, FindsKnownParametersUnderNoiseAndOutliers) {
  const FitResult fit = fit_law(synthetic(kTruth, 400, 0.05, 7, true), all_terms());
  EXPECT_NEAR(fit.law.fixed.value() / 8e-6, 1.0, 0.15);
  EXPECT_NEAR(fit.law.wave->value() / 1.5e-6, 1.0, 0.1);
  EXPECT_NEAR(fit.law.bandwidth->value() / 3e12, 1.0, 0.05);
  EXPECT_NEAR(fit.law.flops->value() / 6e14, 1.0, 0.05);
  EXPECT_NEAR(fit.law.p / 2.5, 1.0, 0.25);
  EXPECT_LE(fit.ci90.bandwidth_bytes_per_s->low, 3.1e12);
  EXPECT_GE(fit.ci90.bandwidth_bytes_per_s->high, 2.9e12);
  EXPECT_LT(fit.loo.median, 0.05);
  EXPECT_TRUE(fit.notes.empty());
}

TEST(FitLaw, WhatTheIntervalPromisesHoldsForNewPoints) {
  const FitResult fit = fit_law(synthetic(kTruth, 300, 0.2, 3), all_terms());
  int n_inside = 0;
  const auto fresh = synthetic(kTruth, 1000, 0.2, 4);
  for (const CalibrationPoint& point : fresh) {
    const double residual = std::log(point.time / time(fit.law, point.work));
    n_inside += residual >= fit.residuals.q05 && residual <= fit.residuals.q95 ? 1 : 0;
  }
  EXPECT_GE(n_inside, 850);  // 900 expected
  EXPECT_LE(n_inside, 950);
}

// A law that is off by a factor of 2 three doublings outside of its points is off there by what a
// prediction's interval grows to, four times its width: so the width that this tells is log(2) / 4.
TEST(FitLaw, APointFarOutsideTellsAsMuchOfTheIntervalAsItWouldBeWidened) {
  std::vector<CalibrationPoint> points;
  for (const double mebibytes : {1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 64.0}) {
    const Work work{.bytes = Bytes(mebibytes * 1048576.0)};
    const double off = mebibytes > 8.0 ? 2.0 : 1.0;
    points.push_back({work, off * (work.bytes / BytesPerSecond(3e12))});
  }
  const FitResult fit = fit_law(points, {.terms = {.fixed = false}});
  EXPECT_NEAR(fit.residuals.q95, std::log(2.0) / 4.0, 0.01);
  EXPECT_NEAR(fit.loo.max, 0.5, 0.02);  // errors are as they are
}

TEST(FitLaw, ATermThatThePointsCannotTellIsDroppedAndSaidSo) {
  Law memory_only = kTruth;
  memory_only.flops.reset();
  memory_only.wave.reset();
  const FitResult fit = fit_law(synthetic(memory_only, 200, 0.1, 5), all_terms());
  EXPECT_FALSE(fit.law.flops && fit.law.flops->value() < 1e17);
  EXPECT_FALSE(fit.notes.empty());
  EXPECT_NEAR(fit.law.bandwidth->value() / 3e12, 1.0, 0.05);
}

TEST(FitLaw, FewPointsGetFewParameters) {
  const FitResult fit = fit_law(synthetic(kTruth, 12, 0.02, 6), all_terms());
  EXPECT_FALSE(fit.law.wave || fit.law.flops);
  EXPECT_GE(fit.notes.size(), 3U);
  EXPECT_THROW((void)fit_law(synthetic(kTruth, 4, 0.02, 6), all_terms()), std::invalid_argument);
}

TEST(FitLaw, NoRateExceedsItsCeiling) {
  FitSettings settings = all_terms();
  settings.max_bandwidth = BytesPerSecond(2.5e12);
  settings.max_flops = FlopsPerSecond(5e14);
  const FitResult fit = fit_law(synthetic(kTruth, 300, 0.05, 8), settings);
  EXPECT_LE(fit.law.bandwidth->value(), 2.5e12 * (1 + 1e-9));
  EXPECT_LE(fit.law.flops->value(), 5e14 * (1 + 1e-9));
}

TEST(FitLaw, HeldOutPointsAreCountedAndTheResultRepeats) {
  FitSettings settings = all_terms();
  settings.holdout_share = 0.1;
  const auto points = synthetic(kTruth, 300, 0.05, 9);
  const FitResult fit = fit_law(points, settings);
  EXPECT_EQ(fit.holdout->n_points, 30);
  EXPECT_EQ(fit.loo.n_points, 270);
  EXPECT_EQ(fit_law(points, settings).law, fit.law);
}

TEST(FitLaw, TheilSenIsNotMovedByOutliers) {
  Law line = kTruth;
  line.flops.reset();
  line.wave.reset();
  const double slope = theil_sen_slope(synthetic(line, 200, 0.01, 10, true));
  EXPECT_NEAR(slope * 3e12, 1.0, 0.05);
}

}  // namespace
}  // namespace kvfathom
