// An engine's plan on a real machine: with memory kept in reserve, and with a host that shares the
// device's memory.
#pragma once

#include <memory>
#include <vector>

#include "model/engine/engine.h"

namespace kvfathom::cli {

struct MachineRules {
  std::int64_t reserve_bytes = 0;   ///< kept free on every device that has a capacity
  std::vector<Device> devices;      ///< those devices
  bool host_shares_memory = false;  ///< host lines are paid from gpu0's memory
};

/// `plan` under these rules; the command is the engine's, unchanged.
[[nodiscard]] std::unique_ptr<MemoryPlan> on_machine(std::unique_ptr<MemoryPlan> plan,
                                                     MachineRules rules);

}  // namespace kvfathom::cli
