// Sentences that several commands print: which model, which machine, what a scheme stores.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/query.h"
#include "cli/speed_plan.h"

namespace kvfathom::cli {

/// "GLM-4.7-Flash, 29.9 B parameters (3.6 B active), q4_k_m weights".
[[nodiscard]] std::string model_line(const ModelArgument& model);

/// "NVIDIA GeForce RTX 4090, 24.00 GiB" or "no GPU given".
[[nodiscard]] std::string machine_line(const Machine& machine);

/// "Placed: gpu0 24 layers, host 9 layers (..); experts of the first 12 layers on the host".
[[nodiscard]] std::string placement_line(const Placement& placement);

/// "llama.cpp 0.5.0", "ideal".
[[nodiscard]] std::string versioned_engine(const Query& query);

/// What it runs beside the model: "drafting 2 tokens by MTP, with projector F"; empty for nothing.
[[nodiscard]] std::string beside_the_model(const Query& query);

/// "llama.cpp 0.5.0, drafting 2 tokens by MTP".
[[nodiscard]] std::string engine_line(const Query& query);

/// Says what the draft line pays for, where there is one.
void print_draft_line(Console& console, const Query& query, const MemoryLedger& ledger);

/// Says why `ideal` answers for the default engine, where it does.
void print_default_refused(Console& console, const Query& query);

/// "32,768 tokens x 4 sequences".
[[nodiscard]] std::string extent(std::int64_t context_tokens, std::int64_t sequences);

/// Where a scheme pays: "never", "always", "from 1,142", "up to 20", "15-20, from 1,142".
[[nodiscard]] std::string pays_text(const std::vector<Span>& spans);

/// "f16", or "q8_0/f16" where K and V differ.
[[nodiscard]] std::string type_pair(DType k, DType v);

/// What one token leaves in the cache: "47 layers x 576 values, V is a view of K".
[[nodiscard]] std::string stored_line(const ModelSpec& model, const cache::SchemeRequest& scheme);

/// The engine's command, if it has one, and what it wants to hear before it serves a context that
/// is longer than the trained one.
void print_command(Console& console,
                   const Query& query,
                   std::int64_t context_tokens,
                   const std::string& command);

}  // namespace kvfathom::cli
