// Low-rank adapters beside a model: from a file, or by rank and targets.
#pragma once

#include <optional>

#include "cli/query.h"
#include "model/memory/companions.h"

namespace kvfathom::cli {

/// InputError for options that contradict each other or name no adapter; Unsupported for an engine
/// without a rule.
[[nodiscard]] std::optional<AdapterQuery> read_adapters(const Options& all, const Query& query);

/// The adapters' line on every device that holds them, as planned. Unsupported where the settings
/// place or cut the model in a way that no rule is known for.
[[nodiscard]] Companion adapter_companion(const Query& query,
                                          const EngineInfo& engine,
                                          const EngineSettings& settings);

}  // namespace kvfathom::cli
