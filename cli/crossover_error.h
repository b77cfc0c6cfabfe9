// How far off an arm may be that waits for two things.
#pragma once

#include <algorithm>
#include <cmath>

#include "cli/crossover.h"

namespace kvfathom::cli {

[[nodiscard]] inline Estimate with_error(double value, double log_error, Provenance provenance) {
  return {value, value * std::exp(-log_error), value * std::exp(log_error), provenance};
}

/// By how much a time may be off, as a logarithm.
[[nodiscard]] inline double log_error(const Estimate& time) {
  return time.value > 0.0 ? std::log(time.high / time.value) : 0.0;
}

/// The error of an arm that waits for the link and for the device: each counts by its share.
[[nodiscard]] inline Estimate mixed(double value,
                                    const ArmCost& cost,
                                    const Estimate& compute,
                                    const TierLink& tier) {
  const double on_device = std::max(cost.compute.value(), cost.memory.value());
  const double of_link = cost.link.value() / (cost.link.value() + on_device);
  const double error = of_link * tier.log_error + (1.0 - of_link) * log_error(compute);
  return with_error(value, error, worst(tier.provenance, compute.provenance));
}

/// Work on a device that others take a share of.
[[nodiscard]] inline Estimate slowed(const Estimate& time, const Busy& busy) {
  const double slower = 1.0 / (1.0 - busy.compute_share);
  return {slower * time.value, slower * time.low, slower * time.high, time.provenance};
}

/// As much of the rebuilding's error as of the prefix is rebuilt, and the link's for the rest.
[[nodiscard]] inline Estimate shared_error(double time_s,
                                           double rebuilt,
                                           const Estimate& rebuilding,
                                           const TierLink& tier) {
  const double error = rebuilt * log_error(rebuilding) + (1.0 - rebuilt) * tier.log_error;
  return with_error(time_s, error, worst(tier.provenance, rebuilding.provenance));
}

}  // namespace kvfathom::cli
