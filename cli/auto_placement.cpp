#include "cli/auto_placement.h"

#include <algorithm>

#include "model/memory/inverse.h"

namespace kvfathom::cli {
namespace {

/// The least n in [low, high] for which `holds`; high + 1 if none. `holds` nearly grows with n:
/// where scratch makes it waver, the search goes on below what bisection found.
template <class Holds>
std::int64_t least(std::int64_t low, std::int64_t high, Holds holds) {
  std::int64_t below = low - 1;
  std::int64_t found = high + 1;
  while (found - below > 1) {
    const std::int64_t middle = below + (found - below) / 2;
    (holds(middle) ? found : below) = middle;
  }
  while (found - 1 >= low && found <= high && holds(found - 1)) {
    --found;
  }
  return found;
}

}  // namespace

EngineSettings auto_placed(const Query& query,
                           const CacheCase& cache_case,
                           std::int64_t context_tokens) {
  const EngineSettings& settings = query.settings;
  const auto fits_with = [&](const EngineSettings& placed) {
    const auto plan = plan_as_placed(query, cache_case, placed);
    return fits(plan->evaluate(context_tokens).ledger, query.machine.capacities);
  };
  EngineSettings placed = settings;
  if (query.machine.host_shares_memory || fits_with(placed)) {
    return placed;  // in one memory nothing is won by moving
  }
  const std::int64_t layers = n_layers(query.model.spec);
  if (has_experts(query.model.spec)) {
    placed.cpu_moe_layers = least(1, layers, [&](std::int64_t n) {
      EngineSettings tried = settings;
      tried.cpu_moe_layers = n;
      return fits_with(tried);
    });
    if (placed.cpu_moe_layers <= layers) {
      return placed;
    }
    placed.cpu_moe_layers = layers;
  }
  const std::int64_t on_host = least(1, layers + 1, [&](std::int64_t n) {
    EngineSettings tried = placed;
    tried.gpu_layers = layers + 1 - n;
    return fits_with(tried);
  });
  placed.gpu_layers = std::max<std::int64_t>(0, layers + 1 - on_host);
  return placed;
}

Query placed_for(const Query& query, const CacheCase& cache_case) {
  Query placed = query;
  if (query.auto_context_tokens) {
    placed.settings = auto_placed(query, cache_case, *query.auto_context_tokens);
    placed.auto_context_tokens.reset();
  }
  return placed;
}

}  // namespace kvfathom::cli
