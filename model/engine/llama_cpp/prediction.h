// A model that drafts by its own prediction block in llama.cpp (--spec-type draft-mtp): a second
// context over the same model, with a cache of the block alone.
//
// Source: llama-server's logs of July to September 2026 for Qwen3.6-27B and Qwen3.8-27B (one
// block): at 32,768 tokens a cache of one layer, 128 MiB, and compute buffers of 130.02 MiB with
// micro-batches of 512 and 520.06 MiB with 2,048; the model's recurrent state is there once more
// for every token that may be drafted, so that it can be taken back. No log was seen of qwen3next
// (llama.cpp pull request 25589), deepseek2 with GLM-4.7-Flash (24868), glm-dsa (25980), deepseek32
// (26457) and glm4moe (26534), whose graphs (src/models/*.cpp, graph_mtp) have the same parts:
// one layer like the model's, without an indexer, between eh_proj and the head, and a cache of that
// layer alone. step35 (24340) and mimo2 (26228) chain three blocks that slide, Nemotron's (26725)
// block is two layers, and of cohere2moe no model with a block is published.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/engine/settings.h"
#include "model/memory/ledger.h"

namespace kvfathom::llama_cpp {

/// Unsupported for architectures whose second context is not known, for older builds and for layers
/// on several devices; InputError for a model without a prediction block.
void refuse_prediction(const ModelSpec& model, const EngineSettings& settings);

/// The block as a model of one layer, whose tensors are the block's alone: the file's, or as a
/// converter stores them. The embedding and the head are the model's own.
[[nodiscard]] ModelSpec prediction_model(const ModelSpec& model);

/// Its settings: those of the model, with a cache of f16.
[[nodiscard]] EngineSettings prediction_settings(const EngineSettings& settings);

/// What is not in the block's own plan. `model` is a ledger of the model, `block` one of the block:
/// copies of the model's state, and an interval for the compute buffer, since the block's graph is
/// followed as a decoder's, which takes a tenth more than was logged; a wide one where no log is
/// known. It has room for a file without the block's own tables where none was read.
[[nodiscard]] std::vector<LedgerLine> prediction_lines(const ModelSpec& spec,
                                                       const MemoryLedger& model,
                                                       const MemoryLedger& block,
                                                       std::int64_t n_draft_tokens);

[[nodiscard]] std::string prediction_options(std::int64_t n_draft_tokens);

}  // namespace kvfathom::llama_cpp
