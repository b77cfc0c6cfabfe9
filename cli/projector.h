// A vision tower and its projector beside a model: llama.cpp's mmproj file.
#pragma once

#include <optional>

#include "cli/query.h"
#include "model/memory/companions.h"

namespace kvfathom::cli {

/// InputError for a file that is no projector of the query's model, Unsupported for an engine, a
/// version or a type of projector without a rule.
[[nodiscard]] std::optional<ProjectorQuery> read_projector(const Options& all, const Query& query);

/// The tower's line on the device that holds it, and the images' on the host.
[[nodiscard]] Companion projector_companion(const Query& query,
                                            const EngineInfo& engine,
                                            const EngineSettings& settings);

}  // namespace kvfathom::cli
