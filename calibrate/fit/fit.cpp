#include "calibrate/fit/fit.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>
#include <utility>

#include "calibrate/fit/solver.h"
#include "model/quantile.h"

namespace kvfathom {
namespace {

using fit::Parameters;
using Points = std::vector<CalibrationPoint>;

/// A fit needs no more: beyond, the noise of a class averages out and only time is spent.
constexpr std::size_t kMostFitted = 2000;
constexpr std::size_t kMostResampled = 300;
constexpr std::size_t kMostLeftOutSingly = 100;
constexpr std::array<const char*, fit::kParameters> kNames{
    "fixed cost", "cost of a wave", "bandwidth", "FLOP rate", "dequantisation rate", "p"};

Points drawn(const Points& points, std::size_t most, std::mt19937_64& generator) {
  Points some = points;
  if (points.size() > most) {
    std::shuffle(some.begin(), some.end(), generator);
    some.resize(most);
  }
  return some;
}

Parameters parameters_for(const FitSettings& settings) {
  const FitTerms& terms = settings.terms;
  Parameters parameters;
  parameters.used = {terms.fixed, terms.wave, terms.bandwidth, terms.flops, terms.dequant, true};
  parameters.free = parameters.used;
  parameters.free[fit::exponent] = terms.p;
  parameters.least.fill(std::log(1e-24));
  parameters.most.fill(std::log(1e3));
  if (settings.max_bandwidth) {
    parameters.least[fit::per_byte] = -std::log(settings.max_bandwidth->value());
  }
  if (settings.max_flops) {
    parameters.least[fit::per_flop] = -std::log(settings.max_flops->value());
  }
  parameters.least[fit::exponent] = 0.0;
  parameters.most[fit::exponent] = std::log(8.0);
  parameters.log = parameters.least;
  parameters.log[fit::exponent] = std::log(terms.p ? 2.0 : settings.p);
  return parameters;
}

void drop(Parameters& parameters, std::size_t term, double p) {
  parameters.free[term] = false;
  if (term == fit::exponent) {
    parameters.log[term] = std::log(p);
  } else {
    parameters.used[term] = false;
  }
}

/// With fewer than five points a parameter, the least certain terms go first.
void drop_what_is_too_many(Parameters& parameters,
                           std::size_t n_points,
                           FitResult& result,
                           double p) {
  for (const std::size_t term : {fit::per_dequant, fit::exponent, fit::wave, fit::per_flop}) {
    const auto n = std::count(parameters.free.begin(), parameters.free.end(), true);
    if (parameters.free[term] && static_cast<std::size_t>(5 * n) > n_points) {
      drop(parameters, term, p);
      result.notes.push_back(std::string(kNames.at(term)) +
                             ": dropped, fewer than five points a parameter");
    }
  }
}

using Spread = std::array<Interval, fit::kParameters>;

/// 90 % intervals of the logarithms. Of many points fewer are drawn each time, and the interval
/// shrinks by the root of the ratio.
Spread bootstrap(const Parameters& fitted, const Points& points, const FitSettings& settings) {
  std::mt19937_64 generator(settings.seed);
  const std::size_t n_drawn = std::min(points.size(), kMostResampled);
  const double shrink =
      std::sqrt(static_cast<double>(n_drawn) / static_cast<double>(points.size()));
  std::uniform_int_distribution<std::size_t> any(0, points.size() - 1);
  std::array<std::vector<double>, fit::kParameters> logs;
  for (int round = 0; round < settings.n_bootstraps; ++round) {
    Points sample;
    for (std::size_t i = 0; i < n_drawn; ++i) {
      sample.push_back(points[any(generator)]);
    }
    Parameters again = fitted;
    fit::minimise(again, sample);
    for (std::size_t j = 0; j < fit::kParameters; ++j) {
      logs[j].push_back(again.log[j]);
    }
  }
  Spread spread;
  for (std::size_t j = 0; j < fit::kParameters; ++j) {
    const double middle = fitted.log[j];
    spread[j] = {middle + shrink * (std::min(quantile(logs[j], 0.05), middle) - middle),
                 middle + shrink * (std::max(quantile(logs[j], 0.95), middle) - middle)};
  }
  return spread;
}

/// The free term whose interval spans most, if that is more than a factor of two.
std::optional<std::size_t> least_identified(const Parameters& fitted,
                                            const Spread& spread,
                                            const std::array<bool, fit::kParameters>& kept) {
  std::optional<std::size_t> widest;
  double width = std::log(2.0);
  for (std::size_t j = 0; j < fit::kParameters; ++j) {
    const double span = spread[j].high - spread[j].low;
    const bool last_rate = (j == fit::per_byte && !fitted.used[fit::per_flop]) ||
                           (j == fit::per_flop && !fitted.used[fit::per_byte]);
    if (fitted.free[j] && !kept[j] && !last_rate && span > width) {
      widest = j;
      width = span;
    }
  }
  return widest;
}

double mean_error(const Parameters& fitted, const Points& points) {
  double sum = 0.0;
  for (const CalibrationPoint& point : points) {
    sum += std::abs(std::log(point.time / time(fit::law_of(fitted), point.work)));
  }
  return sum / static_cast<double>(points.size());
}

/// Whether the points are off by a quarter more without the term.
bool needed(const Parameters& fitted, std::size_t term, const Points& points, double p) {
  constexpr double kMuchMore = 1.25;
  Parameters without = fitted;
  drop(without, term, p);
  fit::start(without, points);
  fit::minimise(without, points);
  return mean_error(without, points) > kMuchMore * mean_error(fitted, points);
}

/// A term that takes less than a hundredth of every point's time, if there is one.
std::optional<std::size_t> negligible(const Parameters& fitted, const Points& points) {
  for (std::size_t j = 0; j < fit::exponent; ++j) {
    const double unit = std::exp(fitted.log[j]);
    const bool counts = std::any_of(points.begin(), points.end(), [&](const auto& point) {
      return unit * fit::amounts(point.work)[j] > 0.01 * point.time.value();
    });
    if (fitted.free[j] && !counts) {
      return j;
    }
  }
  return std::nullopt;
}

LawIntervals intervals_of(const Parameters& fitted, const Spread& spread) {
  const auto interval = [&](std::size_t j, bool is_rate) -> std::optional<Interval> {
    if (!fitted.free[j]) {
      return std::nullopt;
    }
    return is_rate ? Interval{std::exp(-spread[j].high), std::exp(-spread[j].low)}
                   : Interval{std::exp(spread[j].low), std::exp(spread[j].high)};
  };
  return {interval(fit::fixed, false),
          interval(fit::wave, false),
          interval(fit::per_byte, true),
          interval(fit::per_flop, true),
          interval(fit::per_dequant, true),
          interval(fit::exponent, false)};
}

FitErrors errors_from(const std::vector<double>& log_ratios) {
  std::vector<double> errors;
  double sum = 0.0;
  for (const double r : log_ratios) {
    errors.push_back(std::abs(std::exp(-r) - 1.0));
    sum += errors.back();
  }
  return {static_cast<std::int64_t>(errors.size()),
          quantile(errors, 0.5),
          sum / static_cast<double>(errors.size()),
          quantile(errors, 0.9),
          quantile(errors, 1.0)};
}

std::vector<double> log_ratios(const Law& law, std::span<const CalibrationPoint> points) {
  std::vector<double> ratios;
  for (const CalibrationPoint& point : points) {
    ratios.push_back(std::log(point.time / time(law, point.work)));
  }
  return ratios;
}

/// log(measured / predicted) of points by fits that did not see them, and the same by the doublings
/// that each lies outside of what was seen.
struct LeftOut {
  std::vector<double> ratios;
  std::vector<double> inside;
};

LeftOut left_out(const Parameters& fitted, const Points& points, std::mt19937_64& generator) {
  const std::size_t n_folds = points.size() <= kMostLeftOutSingly ? points.size() : 10;
  LeftOut result;
  for (std::size_t fold = 0; fold < n_folds; ++fold) {
    Points seen;
    Points unseen;
    for (std::size_t i = 0; i < points.size(); ++i) {
      (i % n_folds == fold ? unseen : seen).push_back(points[i]);
    }
    Parameters again = fitted;
    fit::minimise(again, drawn(seen, kMostFitted, generator));
    const std::vector<double> of_fold = log_ratios(fit::law_of(again), unseen);
    const WorkRange range = range_of(seen);
    for (std::size_t i = 0; i < unseen.size(); ++i) {
      result.ratios.push_back(of_fold[i]);
      result.inside.push_back(of_fold[i] / widening(range, unseen[i].work));
    }
  }
  return result;
}

void cross_check(const Parameters& fitted, const Points& points, FitResult& result) {
  const bool two = fitted.free[fit::fixed] && fitted.used[fit::per_byte] &&
                   !fitted.used[fit::wave] && !fitted.used[fit::per_flop] &&
                   !fitted.used[fit::per_dequant];
  if (two && std::abs(std::log(theil_sen_slope(points)) - fitted.log[fit::per_byte]) > 0.1) {
    result.notes.emplace_back("bandwidth: more than 10 % from the median slope of all pairs");
  }
}

void check(std::span<const CalibrationPoint> points) {
  const bool positive =
      std::all_of(points.begin(), points.end(), [](const CalibrationPoint& point) {
        return point.time > Seconds(0) && std::isfinite(point.time.value());
      });
  if (points.size() < 5 || !positive) {
    throw std::invalid_argument("a fit needs at least 5 points with positive times");
  }
}

}  // namespace

WorkRange range_of(std::span<const CalibrationPoint> points) {
  const auto interval = [&](auto quantity) {
    const auto [least, most] = std::ranges::minmax(points, {}, quantity);
    return Interval{quantity(least), quantity(most)};
  };
  return {.bytes = interval([](const CalibrationPoint& p) { return p.work.bytes.value(); }),
          .flops = interval([](const CalibrationPoint& p) { return p.work.flops.value(); }),
          .waves = interval([](const CalibrationPoint& p) { return p.work.waves; })};
}

FitErrors errors_of(const Law& law, std::span<const CalibrationPoint> points) {
  return errors_from(log_ratios(law, points));
}

double theil_sen_slope(std::span<const CalibrationPoint> points) {
  constexpr std::size_t kMost = 500;
  const std::size_t stride = (points.size() + kMost - 1) / kMost;
  std::vector<double> slopes;
  for (std::size_t i = 0; i < points.size(); i += stride) {
    for (std::size_t j = 0; j < i; j += stride) {
      const double bytes = (points[i].work.bytes - points[j].work.bytes).value();
      if (bytes != 0.0) {
        slopes.push_back((points[i].time - points[j].time).value() / bytes);
      }
    }
  }
  return slopes.empty() ? 0.0 : quantile(std::move(slopes), 0.5);
}

FitResult fit_law(std::span<const CalibrationPoint> all, const FitSettings& settings) {
  check(all);
  std::mt19937_64 generator(settings.seed);
  Points points(all.begin(), all.end());
  std::shuffle(points.begin(), points.end(), generator);
  const auto n_held =
      static_cast<std::size_t>(settings.holdout_share * static_cast<double>(points.size()));
  const Points held(points.end() - static_cast<std::ptrdiff_t>(n_held), points.end());
  points.resize(points.size() - n_held);

  FitResult result;
  Parameters fitted = parameters_for(settings);
  drop_what_is_too_many(fitted, points.size(), result, settings.p);
  const Points used = drawn(points, kMostFitted, generator);
  fit::start(fitted, used);
  fit::minimise(fitted, used);
  Spread spread = bootstrap(fitted, points, settings);
  std::array<bool, fit::kParameters> kept{};
  for (;;) {
    const std::optional<std::size_t> nothing = negligible(fitted, used);
    const std::optional<std::size_t> term =
        nothing ? nothing : least_identified(fitted, spread, kept);
    if (!term) {
      break;
    }
    if (!nothing && settings.keep_needed && needed(fitted, *term, used, settings.p)) {
      kept.at(*term) = true;
      result.notes.push_back(std::string(kNames.at(*term)) + ": uncertain, but needed");
      continue;
    }
    drop(fitted, *term, settings.p);
    result.notes.push_back(std::string(kNames.at(*term)) +
                           (nothing
                                ? ": dropped, below 1 % of every point"
                                : ": dropped, its 90 % interval spans more than a factor of two"));
    fit::start(fitted, used);
    fit::minimise(fitted, used);
    spread = bootstrap(fitted, points, settings);
  }
  result.law = fit::law_of(fitted);
  result.ci90 = intervals_of(fitted, spread);
  cross_check(fitted, points, result);
  const auto [ratios, inside] = left_out(fitted, points, generator);
  result.loo = errors_from(ratios);
  result.residuals = {quantile(inside, 0.05), quantile(inside, 0.5), quantile(inside, 0.95)};
  if (!held.empty()) {
    result.holdout = errors_of(result.law, held);
  }
  return result;
}

}  // namespace kvfathom
