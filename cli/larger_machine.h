// What machine would hold a case that the one at hand does not.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "cli/query.h"

namespace kvfathom::cli {

/// Whether the query's engine takes the case, and the machine holds it.
[[nodiscard]] bool case_fits(const Query& query,
                             const CacheCase& cache_case,
                             std::int64_t context_tokens);

/// What each device of the machine must hold, in the order of its capacities and together, so that
/// the case fits: at least what it has, and whole hundredths of a GiB where that is more. Equal
/// GPUs stay equal. The ledger is evaluated at these sizes, since engines keep a share of a device,
/// and layers are split by memory. Empty: no size was found.
[[nodiscard]] std::vector<std::int64_t> enough_memory(const Query& query,
                                                      const CacheCase& cache_case,
                                                      std::int64_t context_tokens);

struct GpuCount {
  int n_gpus = 1;
  std::int64_t tensor_parallel = 1;
};

/// The fewest of the machine's GPUs that hold the case, up to 16: ranks of a serving engine, or
/// devices that llama.cpp splits layers over. Empty where they differ or none are enough.
[[nodiscard]] std::optional<GpuCount> enough_gpus(const Query& query,
                                                  const CacheCase& cache_case,
                                                  std::int64_t context_tokens);

}  // namespace kvfathom::cli
