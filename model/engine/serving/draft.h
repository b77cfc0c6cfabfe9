// A draft model beside a model in vLLM: a second model on the same ranks, whose layers are in the
// same pool.
//
// Source: vLLM v1/spec_decode/draft_model.py and llm_base_proposer.py (00c4f22d): the draft is
// loaded like any model, embedding and head included, and its attention layers are registered
// beside the target's; config/speculative.py: as many tensor-parallel ranks unless asked otherwise,
// the same vocabulary; v1/core/kv_cache_utils.py: layers that all grow with the context are one
// group, each with pages of its own width.
#pragma once

#include <vector>

#include "model/engine/serving/ranks.h"

namespace kvfathom::serving {

/// Adds `settings.draft_model` to a rank that holds all layers of `model`: its share of the
/// weights, and its layers behind the others. InputError for vocabularies that differ; Unsupported
/// without a rule, for pipeline stages, and for layers that do not all keep K and V of every token.
void add_draft_model(const ModelSpec& model,
                     const EngineSettings& settings,
                     const Parallel& parallel,
                     const LoadRules& rules,
                     std::vector<StageRank>& ranks);

}  // namespace kvfathom::serving
