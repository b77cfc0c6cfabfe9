// What an engine loads beside a model, added to the model's own plan: a draft model, adapters.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/engine/engine.h"

namespace kvfathom {

/// One companion. All that it takes of a device is one line of `kind` there.
struct Companion {
  LedgerKind kind = LedgerKind::draft;
  std::unique_ptr<MemoryPlan> plan;  ///< its own ledger; its runtime is the process's, paid once
  std::vector<LedgerLine> fixed;     ///< the same at every context; the kind is not read
  std::string options;               ///< of the engine's command, each with a blank before
};

/// `base` and its companions as one plan, whose inverse is as exact as theirs.
[[nodiscard]] std::unique_ptr<MemoryPlan> with_companions(std::unique_ptr<MemoryPlan> base,
                                                          std::vector<Companion> companions);

}  // namespace kvfathom
