// Planted parameters come back, outliers do not move them, and what no row speaks of stays put.
#include "calibrate/ridge_fit.h"

#include <cmath>

#include <gtest/gtest.h>

namespace kvfathom {
namespace {

TEST(SolvePositive, SolvesByHand) {
  // [4 2; 2 3] x = [8; 7]: x = [1.25, 1.5].
  const std::vector<double> x = solve_positive({4, 2, 2, 3}, {8, 7});
  EXPECT_NEAR(x[0], 1.25, 1e-12);
  EXPECT_NEAR(x[1], 1.5, 1e-12);
}

/// log times of t0 + bytes / bandwidth, one row ten times too slow.
RidgeProblem problem(std::vector<double>& x, std::vector<double>& bytes) {
  RidgeProblem p;
  for (int i = 0; i < 40; ++i) {
    bytes.push_back(1e6 * std::pow(1.4, i));
  }
  p.n_rows = bytes.size();
  p.weights.assign(p.n_rows, 1.0);
  p.mean = {std::log(1e-5), std::log(1e12), 0.7};
  p.deviation = {2.0, 2.0, 0.3};
  p.set = [&x](std::span<const double> values) { x.assign(values.begin(), values.end()); };
  p.residual = [&x, &bytes](std::size_t row) {
    const double measured = (4e-6 + bytes[row] / 7e11) * (row == 20 ? 10.0 : 1.0);
    return std::log((std::exp(x[0]) + bytes[row] / std::exp(x[1])) / measured);
  };
  p.depends = [](std::size_t, std::size_t parameter) { return parameter < 2; };
  return p;
}

TEST(FitRidge, FindsWhatWasPlanted) {
  std::vector<double> x;
  std::vector<double> bytes;
  const RidgeProblem p = problem(x, bytes);
  const RidgeFit fit = fit_ridge(p, p.mean);
  EXPECT_NEAR(std::exp(fit.x[0]), 4e-6, 0.04 * 4e-6);
  EXPECT_NEAR(std::exp(fit.x[1]), 7e11, 0.04 * 7e11);
  EXPECT_DOUBLE_EQ(fit.x[2], 0.7);
}

TEST(FitRidge, AResampleWithTheSameWeightsStaysWhereItIs) {
  std::vector<double> x;
  std::vector<double> bytes;
  const RidgeProblem p = problem(x, bytes);
  const RidgeFit fit = fit_ridge(p, p.mean);
  const std::vector<double> again = refit_linear(p, fit, p.weights);
  EXPECT_NEAR(again[1], fit.x[1], 0.01);
}

}  // namespace
}  // namespace kvfathom
