// A draft model beside a model in llama.cpp: which pairs it takes, and the draft's own settings.
//
// Source: llama.cpp tools/server/server-context.cpp of mid 2026: the draft's context has the
// model's parameters (context, sequences, batches), but devices, layers on the GPU and cache types
// of its own; common/speculative.cpp: which vocabularies go together.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/engine/settings.h"
#include "model/memory/ledger.h"

namespace kvfathom::llama_cpp {

/// What a person chooses for the draft alone.
struct DraftChoice {
  std::optional<std::int64_t> gpu_layers;  ///< -ngld; empty: all
  DType cache_type_k = DType::f16;         ///< -ctkd
  DType cache_type_v = DType::f16;         ///< -ctvd
  Provenance weights_provenance = Provenance::exact;
};

/// InputError for vocabularies that differ, Unsupported for what no rule is known for: older
/// builds, and models with a recurrent state, which keep a copy of it for each drafted token.
void refuse_draft(const ModelSpec& model, const ModelSpec& draft, const EngineSettings& settings);

[[nodiscard]] EngineSettings draft_settings(const EngineSettings& settings,
                                            const DraftChoice& choice);

/// Logits of the drafted tokens, which both contexts compute and keep for a check at once: nothing
/// up to 16 rows more per sequence (the most tokens that llama.cpp drafted by default).
[[nodiscard]] std::vector<LedgerLine> drafted_rows(const ModelSpec& model,
                                                   const ModelSpec& draft,
                                                   const EngineSettings& settings);

/// llama-server's options for it, each with a blank before.
[[nodiscard]] std::string draft_options(const EngineSettings& draft, std::string_view file);

}  // namespace kvfathom::llama_cpp
