// Which engine has which option: what it does not have is refused, not ignored.
#pragma once

#include "cli/options.h"
#include "model/engine/engine.h"

namespace kvfathom::cli {

/// Throws InputError for an option of another engine, naming what to use in its place. Counts of
/// ranks that say one ask for nothing.
void require_own_options(const EngineOptions& options, const EngineInfo& engine);

}  // namespace kvfathom::cli
