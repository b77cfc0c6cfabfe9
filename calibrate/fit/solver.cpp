#include "calibrate/fit/solver.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace kvfathom::fit {
namespace {

using Vector = std::array<double, kParameters>;
using Matrix = std::array<Vector, kParameters>;

constexpr double kHuber = 0.1;

std::vector<double> residuals(const Parameters& parameters,
                              std::span<const CalibrationPoint> points) {
  const Law law = law_of(parameters);
  std::vector<double> result;
  result.reserve(points.size());
  for (const CalibrationPoint& point : points) {
    result.push_back(std::log(std::max(1e-30, time(law, point.work).value()) / point.time.value()));
  }
  return result;
}

double loss(const std::vector<double>& residual) {
  double sum = 0.0;
  for (const double r : residual) {
    const double size = std::abs(r);
    sum += size < kHuber ? 0.5 * size * size : kHuber * (size - 0.5 * kHuber);
  }
  return sum;
}

/// Normal equations with Huber's weights; held parameters keep a unit row.
std::pair<Matrix, Vector> normal_equations(const Parameters& parameters,
                                           std::span<const CalibrationPoint> points,
                                           const std::vector<double>& residual) {
  constexpr double kStep = 1e-4;
  std::array<std::vector<double>, kParameters> slope;
  for (std::size_t j = 0; j < kParameters; ++j) {
    if (parameters.free[j]) {
      Parameters moved = parameters;
      moved.log[j] += kStep;
      slope[j] = residuals(moved, points);
    }
  }
  Matrix matrix{};
  Vector gradient{};
  for (std::size_t i = 0; i < points.size(); ++i) {
    const double size = std::abs(residual[i]);
    const double weight = size < kHuber ? 1.0 : kHuber / size;
    Vector row{};
    for (std::size_t j = 0; j < kParameters; ++j) {
      row[j] = parameters.free[j] ? (slope[j][i] - residual[i]) / kStep : 0.0;
    }
    for (std::size_t a = 0; a < kParameters; ++a) {
      gradient[a] += weight * row[a] * residual[i];
      for (std::size_t b = 0; b < kParameters; ++b) {
        matrix[a][b] += weight * row[a] * row[b];
      }
    }
  }
  return {matrix, gradient};
}

/// Gauss without pivots: the damped matrix is positive definite.
Vector solve(Matrix m, Vector right) {
  for (std::size_t a = 0; a < kParameters; ++a) {
    for (std::size_t b = a + 1; b < kParameters; ++b) {
      const double factor = m[b][a] / m[a][a];
      for (std::size_t c = a; c < kParameters; ++c) {
        m[b][c] -= factor * m[a][c];
      }
      right[b] -= factor * right[a];
    }
  }
  for (std::size_t a = kParameters; a-- > 0;) {
    for (std::size_t c = a + 1; c < kParameters; ++c) {
      right[a] -= m[a][c] * right[c];
    }
    right[a] /= m[a][a];
  }
  return right;
}

Parameters stepped(const Parameters& from, Matrix matrix, const Vector& gradient, double damping) {
  for (std::size_t a = 0; a < kParameters; ++a) {
    matrix[a][a] += damping * (matrix[a][a] + 1e-6) + 1e-12;
  }
  const Vector step = solve(matrix, gradient);
  Parameters to = from;
  for (std::size_t a = 0; a < kParameters; ++a) {
    if (from.free[a]) {
      to.log[a] =
          std::clamp(from.log[a] - std::clamp(step[a], -2.0, 2.0), from.least[a], from.most[a]);
    }
  }
  return to;
}

}  // namespace

Law law_of(const Parameters& parameters) {
  const auto value = [&](std::size_t j) { return std::exp(parameters.log[j]); };
  Law law;
  law.fixed = Seconds(parameters.used[fixed] ? value(fixed) : 0.0);
  if (parameters.used[wave]) {
    law.wave = Seconds(value(wave));
  }
  if (parameters.used[per_byte]) {
    law.bandwidth = BytesPerSecond(1.0 / value(per_byte));
  }
  if (parameters.used[per_flop]) {
    law.flops = FlopsPerSecond(1.0 / value(per_flop));
  }
  if (parameters.used[per_dequant]) {
    law.dequant_ops_per_s = 1.0 / value(per_dequant);
  }
  law.p = value(exponent);
  return law;
}

std::array<double, kParameters> amounts(const Work& work) {
  return {1.0, work.waves, work.bytes.value(), work.flops.value(), work.dequant_ops, 0.0};
}

void start(Parameters& parameters, std::span<const CalibrationPoint> points) {
  Matrix gram{};
  Vector right{};
  Vector scale{};  // largest share of a point's time that one unit takes
  for (const CalibrationPoint& point : points) {
    const Vector amount = amounts(point.work);
    for (std::size_t a = 0; a < exponent; ++a) {
      scale[a] = std::max(scale[a], amount[a] / point.time.value());
    }
  }
  for (const CalibrationPoint& point : points) {
    Vector row = amounts(point.work);
    for (std::size_t a = 0; a < exponent; ++a) {
      row[a] = scale[a] > 0.0 ? row[a] / point.time.value() / scale[a] : 0.0;
    }
    for (std::size_t a = 0; a < exponent; ++a) {
      right[a] += row[a];
      for (std::size_t b = 0; b < exponent; ++b) {
        gram[a][b] += row[a] * row[b];
      }
    }
  }
  Vector x{};
  for (int sweep = 0; sweep < 500; ++sweep) {
    for (std::size_t a = 0; a < exponent; ++a) {
      double rest = right[a];
      for (std::size_t b = 0; b < exponent; ++b) {
        rest -= b == a ? 0.0 : gram[a][b] * x[b];
      }
      x[a] = parameters.used[a] && gram[a][a] > 0.0 ? std::max(0.0, rest / gram[a][a]) : 0.0;
    }
  }
  for (std::size_t a = 0; a < exponent; ++a) {
    if (parameters.used[a] && scale[a] > 0.0) {  // a term at zero starts at 1 % of what could be
      parameters.log[a] = std::clamp(
          std::log(std::max(x[a], 0.01) / scale[a]), parameters.least[a], parameters.most[a]);
    }
  }
}

void minimise(Parameters& parameters, std::span<const CalibrationPoint> points) {
  std::vector<double> residual = residuals(parameters, points);
  double cost = loss(residual);
  double damping = 1e-2;
  for (int iteration = 0; iteration < 60; ++iteration) {
    const auto [matrix, gradient] = normal_equations(parameters, points, residual);
    bool better = false;
    for (int attempt = 0; attempt < 12 && !better; ++attempt) {
      const Parameters moved = stepped(parameters, matrix, gradient, damping);
      std::vector<double> moved_residual = residuals(moved, points);
      const double moved_cost = loss(moved_residual);
      better = moved_cost < cost;
      if (better) {
        const bool settled = cost - moved_cost < 1e-7 * cost;
        parameters = moved;
        residual = std::move(moved_residual);
        cost = moved_cost;
        damping = std::max(damping / 4.0, 1e-9);
        if (settled) {
          return;
        }
      } else {
        damping *= 5.0;
      }
    }
    if (!better) {
      return;
    }
  }
}

}  // namespace kvfathom::fit
