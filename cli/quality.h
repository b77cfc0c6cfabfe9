// Published quality of lossy schemes, as answers carry it.
#pragma once

#include "cli/console.h"
#include "cli/json_writer.h"
#include "cli/query.h"

namespace kvfathom::cli {

/// Every figure published for the case's scheme, nearest setting first; empty for exact schemes.
[[nodiscard]] std::vector<cache::Evidence> evidence(const SchemeLabel& label,
                                                    const CacheCase& cache_case,
                                                    std::int64_t context_tokens);

[[nodiscard]] Json quality_json(const std::vector<cache::Evidence>& figures);

/// The nearest figures as a short table, or that nothing was published.
void print_quality(Console& console, const std::vector<cache::Evidence>& figures);

}  // namespace kvfathom::cli
