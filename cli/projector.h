// A vision tower or an audio encoder beside a model: llama.cpp's mmproj file.
#pragma once

#include <optional>

#include "cli/query.h"
#include "model/memory/companions.h"

namespace kvfathom::cli {

/// InputError for a file that is no projector of the query's model, Unsupported for an engine, a
/// version or a type of projector without a rule.
[[nodiscard]] std::optional<ProjectorQuery> read_projector(const Options& all, const Query& query);

/// The line of all encoders on the device that holds them, and of what they are given on the host.
[[nodiscard]] Companion projector_companion(const Query& query,
                                            const EngineInfo& engine,
                                            const EngineSettings& settings);

}  // namespace kvfathom::cli
