// Order statistics of errors: medians and 90th percentiles.
#pragma once

#include <vector>

namespace kvfathom {

/// The smallest value that at least `share` (0 to 1) of all do not exceed: the nearest rank. 0
/// where there are none.
[[nodiscard]] double quantile(std::vector<double> values, double share);

}  // namespace kvfathom
