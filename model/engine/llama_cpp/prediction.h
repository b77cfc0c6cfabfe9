// A model that drafts by its own prediction block in llama.cpp (--spec-type draft-mtp): a second
// context over the same model, with a cache of the block alone.
//
// Source: llama-server's logs of July to September 2026 for Qwen3.6-27B and Qwen3.8-27B (one
// block): at 32,768 tokens a cache of one layer, 128 MiB, and compute buffers of 130.02 MiB with
// micro-batches of 512 and 520.06 MiB with 2,048; the model's recurrent state is there once more
// for every token that may be drafted, so that it can be taken back. step35, cohere2moe, glm-dsa
// and mimo2 have such a context as well (llama.cpp pull requests 25980 and 26228), of which no log
// was seen; glm4moe, and deepseek2 with it GLM-4.7-Flash (25564 was closed), have none.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/engine/settings.h"
#include "model/memory/ledger.h"

namespace kvfathom::llama_cpp {

/// Unsupported for architectures whose second context was not seen, for older builds and for layers
/// on several devices; InputError for a model without a prediction block.
void refuse_prediction(const ModelSpec& model, const EngineSettings& settings);

/// The block as a model of one layer, whose tensors are the block's alone: the file's, or as a
/// converter stores them. The embedding and the head are the model's own.
[[nodiscard]] ModelSpec prediction_model(const ModelSpec& model);

/// Its settings: those of the model, with a cache of f16.
[[nodiscard]] EngineSettings prediction_settings(const EngineSettings& settings);

/// What is not in the block's own plan. `model` is a ledger of the model, `block` one of the block:
/// copies of the model's state, and an interval for the compute buffer, since the block's graph is
/// followed as a decoder's, which takes a tenth more than was logged.
[[nodiscard]] std::vector<LedgerLine> prediction_lines(const MemoryLedger& model,
                                                       const MemoryLedger& block,
                                                       std::int64_t n_draft_tokens);

[[nodiscard]] std::string prediction_options(std::int64_t n_draft_tokens);

}  // namespace kvfathom::llama_cpp
