// `kvfathom crossover --measure`: both arms run on this machine's CPU, beside what is predicted.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/crossover.h"
#include "cli/json_writer.h"
#include "cli/options.h"
#include "cli/query.h"

namespace kvfathom::cli {

/// Seconds, with the median's 95 % interval.
struct MeasuredTime {
  double value = 0.0;
  double low = 0.0;
  double high = 0.0;
};

struct MeasuredArm {
  Estimate predicted;
  MeasuredTime measured;
};

/// One length. Times are the whole model's, scaled from the layers that ran.
struct MeasuredPoint {
  std::int64_t n_tokens = 0;
  MeasuredArm fetch;      ///< K and V
  MeasuredArm recompute;  ///< from token ids
  MeasuredArm fetch_x;    ///< X fetched while K and V of the layer before are projected
  int n_layers = 0;       ///< that recomputing ran
};

/// A length at which the winner changes.
struct MeasuredCrossover {
  std::string id;          ///< what is fetched: "native" (K and V) or "residual" (X)
  bool fetch_wins = true;  ///< beyond it
  std::int64_t predicted_tokens = 0;
  std::optional<double> measured_tokens = std::nullopt;  ///< none: not between the lengths measured
  std::optional<double> low_tokens = std::nullopt;  ///< with both arms at ends of their intervals
  std::optional<double> high_tokens = std::nullopt;
};

struct MeasuredAnswer {
  TierLink tier;
  bool held = false;  ///< copies are held to the link's rate; else as fast as memory
  std::int64_t n_threads = 0;
  double load_average = 0.0;               ///< of the last minute before: what else the machine did
  std::vector<MeasuredPoint> points = {};  ///< by length
  std::vector<MeasuredCrossover> crossovers = {};
  std::vector<std::int64_t> too_long_tokens = {};  ///< left out: one layer would take too long
};

/// Time of fetching over that of rebuilding, at one length.
struct LengthRatio {
  double n_tokens = 0.0;
  double ratio = 0.0;
};
/// Where the ratio falls through 1 (or, where fetching ceases to win, rises through it), between
/// two lengths along a power law; of several, the nearest to `near_tokens`. Lengths must rise.
[[nodiscard]] std::optional<double> crossing(const std::vector<LengthRatio>& ratios,
                                             bool fetch_wins,
                                             double near_tokens);

/// Takes what was measured from all but the prediction nearest to it.
void leave_to_nearest(std::vector<MeasuredCrossover>& crossovers);

[[nodiscard]] int crossover_measure(const Options& options, Console& console);

void print_measured(Console& console, const Query& query, const MeasuredAnswer& answer);
[[nodiscard]] Json measured_json(const Query& query, const MeasuredAnswer& answer);

}  // namespace kvfathom::cli
