// The GPU that a command was given: a catalog name, this machine, a hardware file, or a size.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/device_plan.h"
#include "cli/options.h"
#include "model/hardware/hardware_spec.h"
#include "model/memory/inverse.h"

namespace kvfathom::cli {

struct Machine {
  std::string name;                   ///< as the person would say it; empty if no machine was given
  int n_gpus = 1;                     ///< 0: the model lives on the host
  std::vector<HardwareSpec> devices;  ///< one per GPU, or the host's memory; empty: not given
  /// What each device may be filled to, reserve included; the host's, if it is known, is the last.
  std::vector<Capacity> capacities;
  std::int64_t reserve_bytes = 0;
  bool host_shares_memory = false;   ///< gpu0 and the host have one memory
  std::optional<HardwareSpec> host;  ///< CPU and memory beside the GPUs, where something is known

  /// What each GPU holds, where they differ: layers are split by it. Empty where they do not.
  [[nodiscard]] std::vector<std::int64_t> uneven_memory() const;
  /// Whether gpu0 may have only a part of a memory that it shares with the host: then the whole is
  /// the host's capacity.
  [[nodiscard]] bool is_gpu_limited() const {
    return !capacities.empty() && capacities.back().with_gpu0;
  }
  [[nodiscard]] bool known() const { return !capacities.empty(); }
  [[nodiscard]] MachineRules rules() const;
};

/// Throws InputError for names that no catalog has (the nearest are named) and for options that
/// contradict each other.
[[nodiscard]] Machine read_machine(const GpuOptions& options);

/// So many of one GPU.
[[nodiscard]] Machine machine_of(const HardwareSpec& device, int n_gpus);

}  // namespace kvfathom::cli
