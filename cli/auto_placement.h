// `--auto`: where llama.cpp's own fit would put the layers, by our ledger.
#pragma once

#include "cli/query.h"

namespace kvfathom::cli {

/// llama.cpp's --fit-ctx: the context that a placement has to leave room for at least.
inline constexpr std::int64_t kFitContextTokens = 4096;
/// llama.cpp's --fit-target: what its fit leaves free on every GPU.
inline constexpr std::int64_t kFitMarginBytes = std::int64_t{1} << 30;

/// The query's settings with the most on the GPUs that fits at `context_tokens`: everything; else,
/// where there are experts, all layers with the experts of as few layers as needed on the host;
/// else as many layers as fit. Where nothing does, all layers are on the host.
[[nodiscard]] EngineSettings auto_placed(const Query& query,
                                         const CacheCase& cache_case,
                                         std::int64_t context_tokens);

/// `query` with its layers placed for the case, if they are to be placed at all.
[[nodiscard]] Query placed_for(const Query& query, const CacheCase& cache_case);

}  // namespace kvfathom::cli
