// The laws by which a query's operations are priced: the best that is known of its machine.
#pragma once

#include <memory>

#include "cli/query.h"
#include "model/latency/step_ops.h"
#include "model/latency/step_time.h"

namespace kvfathom::cli {

/// Published kernels of the device (data/calibrations) where there are some and the engine runs
/// such kernels; else shares of the data sheet fitted to the engine's own published speeds
/// (data/engines/speed), or assumed ones. Laws differ by phase in how sure they are. InputError
/// where no device was given or its bandwidth is not known.
[[nodiscard]] std::unique_ptr<LawSource> laws_of(const Query& query, Phase phase);

}  // namespace kvfathom::cli
