// The prediction block of a model (multi-token prediction), which a serving engine loads to draft
// tokens: a layer like the model's own behind a matrix that joins a token's embedding and the
// features of the one before. Embedding and head are the model's.
//
// Source: vLLM (00c4f22d) v1/spec_decode/llm_base_proposer.py and models/*_mtp.py; SGLang
// (003fca80) srt/speculative and models/*_nextn.py. Drafting more tokens than there are blocks runs
// the last one again, over the same cache.
#pragma once

#include <string_view>

#include "model/engine/serving/ranks.h"

namespace kvfathom::serving {

/// Whether a checkpoint's tensor is of a prediction block that is numbered apart from the layers:
/// "mtp.layers.0...", "model.mtp_layers.0...".
[[nodiscard]] bool is_of_numbered_block(std::string_view name);

/// The block as a model of its own: its layers, and its tensors alone, "blk.0." to "blk.N.". Of a
/// recipe's tensors the block's are those of the layers that it is like. Unsupported: architectures
/// whose block is not known to be built so. InputError: a model without a block, a checkpoint
/// without its tensors.
[[nodiscard]] ModelSpec prediction_block(const ModelSpec& model);

/// Adds the block of `model` to a rank that holds all layers: its bytes, its layers behind the
/// others, and states as long as `settings.draft_tokens` need. Unsupported without a rule, and for
/// pipeline stages.
void add_prediction_block(const ModelSpec& model,
                          const EngineSettings& settings,
                          const Parallel& parallel,
                          const LoadRules& rules,
                          std::vector<StageRank>& ranks);

}  // namespace kvfathom::serving
