// From points to fitted classes.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "calibrate/program/plan.h"
#include "model/latency/calibration.h"

namespace kvfathom::calibrate {

/// Every class of the plan with five fitted points or more. `times_s` by the points' names.
[[nodiscard]] std::vector<FittedClass> fit_classes(const Plan& plan,
                                                   const std::map<std::string, double>& times_s,
                                                   const Ceilings& ceilings);

}  // namespace kvfathom::calibrate
