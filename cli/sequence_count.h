// How many sequences of a length a machine holds.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "cli/query.h"

namespace kvfathom::cli {

/// The plan for `sequences`, or null where the engine refuses so many.
[[nodiscard]] std::unique_ptr<MemoryPlan> plan_for(const Query& query,
                                                   const CacheCase& cache_case,
                                                   std::int64_t sequences);

/// The most sequences of `context_tokens` that fit; 0: not one does.
[[nodiscard]] std::int64_t count_sequences(const Query& query,
                                           const CacheCase& cache_case,
                                           std::int64_t context_tokens);

/// What keeps a machine that holds `most` sequences from holding one more: "memory", "engine", or
/// "search" where the count goes no further.
[[nodiscard]] std::string limit_of_sequences(const Query& query,
                                             const CacheCase& cache_case,
                                             std::int64_t most);

}  // namespace kvfathom::cli
