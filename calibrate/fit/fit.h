// Fits the law of one class of kernels to measured points, robustly and with its errors.
//
// Minimised is the Huber loss (delta 0.1) of log(law / measured) over the logarithms of the
// parameters, by Levenberg-Marquardt, so that a point counts by its relative error, a wild one
// counts little, and no parameter turns negative. The start is the law with p = 1 and non-negative
// least squares. Deterministic: the generator has a fixed seed.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/latency/calibration.h"

namespace kvfathom {

/// Terms that the law may have. One that the points cannot tell is dropped, and a note says so.
struct FitTerms {
  bool fixed = true;
  bool wave = false;
  bool bandwidth = true;
  bool flops = false;
  bool dequant = false;
  bool p = false;  ///< fitted in [1, 8]; otherwise FitSettings::p
};

struct FitSettings {
  FitTerms terms = {};
  double p = 1.0;  ///< where it is not fitted
  /// What the machine reaches at best: no fitted rate may exceed it.
  std::optional<BytesPerSecond> max_bandwidth = {};
  std::optional<FlopsPerSecond> max_flops = {};
  double holdout_share = 0.0;  ///< of the points, drawn by chance, that the fit never sees
  /// Few points leave even a term that they need uncertain: one without which they would be off by
  /// a quarter more is kept, however wide its interval, and a note says so.
  bool keep_needed = false;
  int n_bootstraps = 100;
  std::uint64_t seed = 1;
};

struct FitResult {
  Law law;
  LawIntervals ci90;
  FitErrors loo;  ///< each left out in turn; of more than 100 points, each tenth
  std::optional<FitErrors> holdout;
  /// Of the points left out. One that lies outside of all others counts as what it tells of the
  /// law inside: the intervals of predictions widen by as much for each doubling outside.
  ResidualQuantiles residuals;
  std::vector<std::string> notes;
};

/// std::invalid_argument for fewer than 5 points or a time that is not positive.
[[nodiscard]] FitResult fit_law(std::span<const CalibrationPoint> all, const FitSettings& settings);

/// The least and the most of each quantity. At least one point.
[[nodiscard]] WorkRange range_of(std::span<const CalibrationPoint> points);

/// Errors of a law over points.
[[nodiscard]] FitErrors errors_of(const Law& law, std::span<const CalibrationPoint> points);

/// Median of the slopes of all pairs (of at most 500 points): seconds a byte, whatever outliers do.
[[nodiscard]] double theil_sen_slope(std::span<const CalibrationPoint> points);

}  // namespace kvfathom
