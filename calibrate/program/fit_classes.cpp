#include "calibrate/program/fit_classes.h"

#include <algorithm>

namespace kvfathom::calibrate {
namespace {

struct ClassPoints {
  std::vector<CalibrationPoint> fitted;
  std::vector<CalibrationPoint> held_out;
};

FittedClass fit_class(const PlannedClass& planned,
                      const ClassPoints& points,
                      const Ceilings& ceilings) {
  constexpr double kCeilingError = 1.1;  // what a ceiling itself may be off on a shared machine
  FitSettings settings{.terms = planned.terms, .p = planned.p, .keep_needed = true};
  if (ceilings.read && ceilings.copy) {
    settings.max_bandwidth = kCeilingError * std::max(*ceilings.read, *ceilings.copy);
  }
  const FitResult fit = fit_law(points.fitted, settings);
  FittedClass fitted{.id = planned.id,
                     .provenance = Provenance::measured,
                     .law = fit.law,
                     .ci90 = fit.ci90,
                     .loo = fit.loo,
                     .residuals = fit.residuals,
                     .range = range_of(points.fitted),
                     .n_points = static_cast<std::int64_t>(points.fitted.size()),
                     .source = "kvfathom's kernels on this machine",
                     .notes = fit.notes,
                     .points = points.fitted};
  if (!points.held_out.empty()) {
    fitted.holdout = errors_of(fit.law, points.held_out);
  }
  return fitted;
}

}  // namespace

std::vector<FittedClass> fit_classes(const Plan& plan,
                                     const std::map<std::string, double>& times_s,
                                     const Ceilings& ceilings,
                                     std::int64_t n_units) {
  std::vector<ClassPoints> points(plan.classes.size());
  for (const PlannedPoint& point : plan.points) {
    const auto time = times_s.find(point.name());
    if (time == times_s.end()) {
      continue;
    }
    const bench::Case of_point = point.kernel->make_case(point.request);
    const Work work = of_point.work != nullptr && n_units > 0
                          ? of_point.work(point.request.shape, n_units)
                          : work_of(of_point.cost);
    ClassPoints& of = points[point.class_index];
    (point.held_out ? of.held_out : of.fitted).push_back({work, Seconds(time->second)});
  }
  std::vector<FittedClass> classes;
  constexpr std::size_t kFewest = 5;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (points[i].fitted.size() >= kFewest) {
      classes.push_back(fit_class(plan.classes[i], points[i], ceilings));
    }
  }
  return classes;
}

}  // namespace kvfathom::calibrate
