// Predictions against logged truth, row by row, and what they add up to.
#pragma once

#include <string>
#include <vector>

#include "cli/truth.h"

namespace kvfathom::cli {

/// One number predicted, or a row refused.
struct Outcome {
  std::string id;
  std::string engine;
  std::string model;
  std::string component;
  std::string refused;  ///< why there is no prediction; empty: there is one
  double predicted_bytes = 0;
  double actual_bytes = 0;
  bool exact = false;    ///< equal after the log's own rounding
  bool covered = false;  ///< the actual lies in the prediction's interval
  /// Signed, relative to the actual; 0 where exact, so that a log's rounding is no error.
  [[nodiscard]] double error() const;
};

/// Errors of a set of outcomes.
struct Summary {
  std::string by;    ///< "component", "model", "engine", "component of model"
  std::string name;  ///< of that component, model or engine; "component, model"
  std::int64_t n = 0;
  std::int64_t refused = 0;
  std::int64_t exact = 0;
  double median_abs_error = 0;
  double p90_abs_error = 0;
  double share_under = 0;  ///< predictions below the actual
  double worst_under = 0;  ///< the largest of these errors
  double share_covered = 0;
};

/// `folder` is where the rows are from: its models/ come before the catalog's.
[[nodiscard]] std::vector<Outcome> predict(const std::vector<TruthRow>& rows,
                                           const std::string& folder);

/// By component, by model, by engine, by both; names in order of first appearance.
[[nodiscard]] std::vector<Summary> summarise(const std::vector<Outcome>& outcomes);

}  // namespace kvfathom::cli
