// What drafts for a model: a second model, or a prediction block of its own.
#pragma once

#include "cli/query.h"
#include "model/memory/companions.h"

namespace kvfathom::cli {

/// Adds the options' draft to the query. InputError for options that contradict each other,
/// Unsupported for an engine or a model without a rule.
void read_drafting(const DraftOptions& options, Query& query);

/// The query's draft model, planned by the same engine.
[[nodiscard]] Companion draft_companion(const Query& query,
                                        const EngineInfo& engine,
                                        const EngineSettings& settings);

/// The context over the query's own prediction block, planned as a model of one layer. `model` is
/// the plan of the model itself.
[[nodiscard]] Companion prediction_companion(const Query& query,
                                             const EngineInfo& engine,
                                             const EngineSettings& settings,
                                             const MemoryPlan& model);

}  // namespace kvfathom::cli
