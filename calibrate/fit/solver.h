// The minimisation behind fit.h: parameters as logarithms, within bounds.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "model/latency/calibration.h"

namespace kvfathom::fit {

/// Places of the parameters. A rate is kept as seconds per unit, so that all terms are alike.
enum Parameter : std::size_t { fixed, wave, per_byte, per_flop, per_dequant, exponent };
inline constexpr std::size_t kParameters = 6;

struct Parameters {
  std::array<double, kParameters> log = {};    ///< natural logarithms
  std::array<double, kParameters> least = {};  ///< bounds of the logarithms
  std::array<double, kParameters> most = {};
  std::array<bool, kParameters> used = {};  ///< absent terms
  std::array<bool, kParameters> free = {};  ///< used and fitted: p may be used and held
};

[[nodiscard]] Law law_of(const Parameters& parameters);

/// What one unit of each additive parameter is multiplied by; 0 for p.
[[nodiscard]] std::array<double, kParameters> amounts(const Work& work);

/// Non-negative least squares of the law with p = 1, weighted by 1 / time.
void start(Parameters& parameters, std::span<const CalibrationPoint> points);

/// Levenberg-Marquardt from where the parameters stand.
void minimise(Parameters& parameters, std::span<const CalibrationPoint> points);

}  // namespace kvfathom::fit
