// Robust least squares with a prior: parameters that few rows speak of stay near what is assumed.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

namespace kvfathom {

/// Minimises sum of w huber(r / scale) + sum of ((x - mean) / deviation)^2 over x.
struct RidgeProblem {
  std::size_t n_rows = 0;
  std::function<void(std::span<const double>)> set;  ///< what `residual` is of, from now on
  std::function<double(std::size_t row)> residual;   ///< log(predicted / measured)
  std::function<bool(std::size_t row, std::size_t parameter)> depends;
  std::vector<double> weights;    ///< one per row; 0 leaves it out
  std::vector<double> mean;       ///< one per parameter
  std::vector<double> deviation;  ///< one per parameter
  double scale = 0.15;            ///< residuals beyond it count linearly
};

struct RidgeFit {
  std::vector<double> x;
  std::vector<double> residuals;              ///< at x
  std::vector<std::vector<double>> jacobian;  ///< of each row, one step before x
};

/// Gauss-Newton with halved steps, from `start`, until a step gains next to nothing.
[[nodiscard]] RidgeFit fit_ridge(const RidgeProblem& problem,
                                 std::vector<double> start,
                                 int most_steps = 20);

/// Where one more step from `fit` would lead under other weights: the parameters of a resample.
[[nodiscard]] std::vector<double> refit_linear(const RidgeProblem& problem,
                                               const RidgeFit& fit,
                                               std::span<const double> weights);

/// Solves the symmetric positive definite system of n = b.size() unknowns, a in rows.
[[nodiscard]] std::vector<double> solve_positive(std::vector<double> a, std::vector<double> b);

}  // namespace kvfathom
