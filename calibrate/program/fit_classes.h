// From points to fitted classes.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "calibrate/program/plan.h"
#include "model/latency/calibration.h"

namespace kvfathom::calibrate {

/// Every class of the plan with five fitted points or more. `times_s` by the points' names;
/// `n_units` compute units, over which steps count rounds of blocks (0: they do not, as on a CPU).
[[nodiscard]] std::vector<FittedClass> fit_classes(const Plan& plan,
                                                   const std::map<std::string, double>& times_s,
                                                   const Ceilings& ceilings,
                                                   std::int64_t n_units);

}  // namespace kvfathom::calibrate
