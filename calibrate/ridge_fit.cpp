#include "calibrate/ridge_fit.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace kvfathom {
namespace {

double huber(double r) {
  const double a = std::fabs(r);
  return a <= 1.0 ? r * r : 2.0 * a - 1.0;
}

double squared(double x) {
  return x * x;
}

std::vector<double> residuals_at(const RidgeProblem& problem, std::span<const double> x) {
  problem.set(x);
  std::vector<double> residuals(problem.n_rows, 0.0);
  for (std::size_t row = 0; row < problem.n_rows; ++row) {
    if (problem.weights[row] > 0.0) {
      residuals[row] = problem.residual(row);
    }
  }
  return residuals;
}

double objective(const RidgeProblem& problem,
                 std::span<const double> x,
                 std::span<const double> residuals) {
  double sum = 0.0;
  for (std::size_t row = 0; row < problem.n_rows; ++row) {
    sum += problem.weights[row] * huber(residuals[row] / problem.scale);
  }
  for (std::size_t p = 0; p < x.size(); ++p) {
    sum += squared((x[p] - problem.mean[p]) / problem.deviation[p]);
  }
  return sum;
}

std::vector<std::vector<double>> jacobian_at(const RidgeProblem& problem,
                                             const std::vector<double>& x,
                                             std::span<const double> residuals) {
  constexpr double kStep = 1e-4;
  std::vector<std::vector<double>> jacobian(problem.n_rows, std::vector<double>(x.size(), 0.0));
  for (std::size_t p = 0; p < x.size(); ++p) {
    std::vector<double> moved = x;
    moved[p] += kStep;
    problem.set(moved);
    for (std::size_t row = 0; row < problem.n_rows; ++row) {
      if (problem.weights[row] > 0.0 && problem.depends(row, p)) {
        jacobian[row][p] = (problem.residual(row) - residuals[row]) / kStep;
      }
    }
  }
  problem.set(x);
  return jacobian;
}

/// The Gauss-Newton step at a fit, with rows beyond the scale weighed down to count linearly.
std::vector<double> step_at(const RidgeProblem& problem,
                            const RidgeFit& fit,
                            std::span<const double> weights) {
  const std::size_t n = fit.x.size();
  std::vector<double> normal(n * n, 0.0);
  std::vector<double> right(n, 0.0);
  for (std::size_t row = 0; row < problem.n_rows; ++row) {
    const double r = fit.residuals[row] / problem.scale;
    const double w =
        weights[row] / squared(problem.scale) * (std::fabs(r) > 1.0 ? 1.0 / std::fabs(r) : 1.0);
    const std::vector<double>& j = fit.jacobian[row];
    for (std::size_t a = 0; w > 0.0 && a < n; ++a) {
      if (j[a] == 0.0) {
        continue;
      }
      right[a] -= w * j[a] * fit.residuals[row];
      for (std::size_t b = 0; b < n; ++b) {
        normal[a * n + b] += w * j[a] * j[b];
      }
    }
  }
  for (std::size_t p = 0; p < n; ++p) {
    const double precision = 1.0 / squared(problem.deviation[p]);
    normal[p * n + p] += precision;
    right[p] -= precision * (fit.x[p] - problem.mean[p]);
  }
  return solve_positive(std::move(normal), std::move(right));
}

}  // namespace

std::vector<double> solve_positive(std::vector<double> a, std::vector<double> b) {
  const std::size_t n = b.size();
  for (std::size_t i = 0; i < n; ++i) {  // a becomes its Cholesky factor, below the diagonal
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = a[i * n + j];
      for (std::size_t k = 0; k < j; ++k) {
        sum -= a[i * n + k] * a[j * n + k];
      }
      a[i * n + j] = i == j ? std::sqrt(sum) : sum / a[j * n + j];
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < i; ++k) {
      b[i] -= a[i * n + k] * b[k];
    }
    b[i] /= a[i * n + i];
  }
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t k = i + 1; k < n; ++k) {
      b[i] -= a[k * n + i] * b[k];
    }
    b[i] /= a[i * n + i];
  }
  return b;
}

RidgeFit fit_ridge(const RidgeProblem& problem, std::vector<double> start, int most_steps) {
  constexpr int kMostHalvings = 6;
  constexpr double kEnough = 1e-3;  // relative gain of a step
  RidgeFit fit{.x = std::move(start), .residuals = {}, .jacobian = {}};
  fit.residuals = residuals_at(problem, fit.x);
  double best = objective(problem, fit.x, fit.residuals);
  for (int i = 0; i < most_steps; ++i) {
    fit.jacobian = jacobian_at(problem, fit.x, fit.residuals);
    const std::vector<double> step = step_at(problem, fit, problem.weights);
    double length = 1.0;
    double gain = 0.0;
    for (int half = 0; half < kMostHalvings && gain <= 0.0; ++half, length *= 0.5) {
      std::vector<double> x = fit.x;
      for (std::size_t p = 0; p < x.size(); ++p) {
        x[p] += length * std::clamp(step[p], -1.0, 1.0);
      }
      std::vector<double> residuals = residuals_at(problem, x);
      const double value = objective(problem, x, residuals);
      if (value < best) {
        gain = best - value;
        best = value;
        fit.x = std::move(x);
        fit.residuals = std::move(residuals);
      }
    }
    if (gain <= kEnough * best) {
      break;
    }
  }
  problem.set(fit.x);
  return fit;
}

std::vector<double> refit_linear(const RidgeProblem& problem,
                                 const RidgeFit& fit,
                                 std::span<const double> weights) {
  std::vector<double> x = step_at(problem, fit, weights);
  for (std::size_t p = 0; p < x.size(); ++p) {
    x[p] += fit.x[p];
  }
  return x;
}

}  // namespace kvfathom
