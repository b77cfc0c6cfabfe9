// Low-rank adapters beside a model: from a file, or by rank and targets.
#pragma once

#include <optional>

#include "cli/query.h"
#include "model/memory/companions.h"

namespace kvfathom::cli {

/// InputError for options that contradict each other or name no adapter; Unsupported for an engine
/// or a placement without a rule.
[[nodiscard]] std::optional<AdapterQuery> read_adapters(const Options& all, const Query& query);

/// The adapters' line on every device that holds them.
[[nodiscard]] Companion adapter_companion(const Query& query, const EngineInfo& engine);

}  // namespace kvfathom::cli
