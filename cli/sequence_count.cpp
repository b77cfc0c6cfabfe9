#include "cli/sequence_count.h"

#include <algorithm>

#include "model/engine/llama_cpp/cells.h"
#include "model/error.h"

namespace kvfathom::cli {
namespace {

constexpr std::int64_t kMostSequences = std::int64_t{1} << 20;

bool hold(const MemoryPlan& plan, const Query& query, std::int64_t context_tokens) {
  return fits(plan.evaluate(context_tokens).ledger, query.machine.capacities);
}

bool floor_holds(const MemoryPlan& plan, const Query& query, std::int64_t context_tokens) {
  return std::ranges::all_of(query.machine.capacities, [&](const Capacity& capacity) {
    return floor_bytes(plan, capacity, context_tokens) <= capacity.bytes;
  });
}

}  // namespace

std::unique_ptr<MemoryPlan> plan_for(const Query& query,
                                     const CacheCase& cache_case,
                                     std::int64_t sequences) {
  EngineSettings settings = query.settings;
  settings.sequences = sequences;
  try {
    return plan_of(query, cache_case, settings);
  } catch (const InputError&) {
    if (sequences == 1) {
      throw;
    }
    return nullptr;
  }
}

/// The most sequences that fit: by bisection, and since a ledger of llama.cpp need not grow with
/// every sequence, on from there through as many counts as that engine takes at all.
std::int64_t count_sequences(const Query& query,
                             const CacheCase& cache_case,
                             std::int64_t context_tokens) {
  const auto plan_fits = [&](std::int64_t sequences) {
    const auto plan = plan_for(query, cache_case, sequences);
    return plan != nullptr && hold(*plan, query, context_tokens);
  };
  std::int64_t most = 0;  // fits, or is 0
  std::int64_t beyond = 1;
  while (beyond <= kMostSequences && plan_fits(beyond)) {
    most = beyond;
    beyond *= 2;
  }
  beyond = std::min(beyond, kMostSequences + 1);
  while (beyond - most > 1) {
    const std::int64_t middle = most + (beyond - most) / 2;
    (plan_fits(middle) ? most : beyond) = middle;
  }
  const std::int64_t last = std::min(most + llama_cpp::kMostSequences, kMostSequences);
  for (std::int64_t n = most + 1; n <= last; ++n) {
    const auto plan = plan_for(query, cache_case, n);
    if (plan == nullptr || !floor_holds(*plan, query, context_tokens)) {
      break;
    }
    most = hold(*plan, query, context_tokens) ? n : most;
  }
  return most;
}

std::string limit_of_sequences(const Query& query, const CacheCase& cache_case, std::int64_t most) {
  if (most == kMostSequences) {
    return "search";
  }
  return plan_for(query, cache_case, most + 1) == nullptr ? "engine" : "memory";
}

}  // namespace kvfathom::cli
