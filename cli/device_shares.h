// Which devices a step of the query's model passes, and how much of it each runs.
#pragma once

#include <vector>

#include "cli/query.h"
#include "model/hardware/hardware_spec.h"

namespace kvfathom::cli {

/// One kind of device, and its share of the layers.
struct DeviceShare {
  HardwareSpec device;
  double share = 1.0;
};

/// --gpus 0 beside a GPU by name: what runs is the host.
[[nodiscard]] bool runs_on_host(const Machine& machine);

/// The kinds of devices, in their order; shares add up to 1. llama.cpp's layers are where its split
/// puts them, stages hold layers as the engine cuts them. Of ranks that share each layer, and of
/// replicas, the slowest counts: the others wait for it. With everything on the host it is the host
/// alone; InputError where its bandwidth is not known, and where no device was given.
[[nodiscard]] std::vector<DeviceShare> device_shares(const Query& query);

/// Whether all of them have a peak rate, without which a prompt has no time.
[[nodiscard]] bool knows_peak_rates(const Query& query);

}  // namespace kvfathom::cli
