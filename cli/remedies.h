// What would make it fit, when it does not.
#pragma once

#include <string>
#include <vector>

#include "cli/query.h"

namespace kvfathom::cli {

/// Changes, one at a time, each of which makes the case fit at `context_tokens` (or the longest
/// context that does), cheapest for quality first; the last one says how much memory it takes.
[[nodiscard]] std::vector<std::string> remedies(const Query& query,
                                                const Options& options,
                                                const CacheCase& cache_case,
                                                std::int64_t context_tokens);

}  // namespace kvfathom::cli
