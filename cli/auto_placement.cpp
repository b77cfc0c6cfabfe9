#include "cli/auto_placement.h"

#include <algorithm>
#include <utility>

namespace kvfathom::cli {
namespace {

/// The GPUs' shares of a ledger, without what is kept free.
std::vector<llama_cpp::GpuUse> use_of(const MemoryLedger& ledger, int n_gpus) {
  std::vector<llama_cpp::GpuUse> use(static_cast<std::size_t>(n_gpus));
  for (const LedgerLine& line : ledger.lines) {
    if (line.device.index != Device::kHost && line.kind != LedgerKind::reserve) {
      llama_cpp::GpuUse& gpu = use[static_cast<std::size_t>(line.device.index)];
      gpu.bytes += line.high_bytes;
      gpu.weights_bytes += line.kind == LedgerKind::weights ? line.high_bytes : 0;
    }
  }
  return use;
}

}  // namespace

llama_cpp::Fitted auto_fitted(const Query& query,
                              const CacheCase& cache_case,
                              std::optional<std::int64_t> context_tokens) {
  const EngineSettings& settings = query.settings;
  llama_cpp::FitTask task;
  task.n_layers = n_layers(query.model.spec);
  task.has_experts = has_experts(query.model.spec);
  // Of a cache that all sequences share the fit counts the tokens of all together.
  const bool shared = settings.kv_unified.value_or(false) && !settings.context_is_total;
  const std::int64_t sharing = shared ? settings.sequences : 1;
  task.streams = settings.kv_unified.value_or(false) ? 1 : settings.sequences;
  task.trained_context_tokens = query.model.spec.trained_context_tokens;
  if (context_tokens) {
    task.asked_context_tokens = *context_tokens * sharing;
  }
  if (task.trained_context_tokens <= 0 && !context_tokens) {
    task.asked_context_tokens = llama_cpp::kFitContextTokens;
  }
  for (const Capacity& capacity : query.machine.capacities) {
    if (capacity.device.index != Device::kHost) {
      task.target_bytes.push_back(capacity.bytes - query.machine.reserve_bytes);
    }
  }
  // In one memory nothing is won by moving, and the formula has no layers to place.
  task.moves_layers = !query.machine.host_shares_memory && !cache_case.by_formula;
  task.use = [&](const EngineSettings& placed, std::int64_t tokens) {
    const auto plan = plan_as_placed(query, cache_case, placed);
    const std::int64_t of_each = std::max<std::int64_t>(1, tokens / sharing);
    return use_of(plan->evaluate(of_each).ledger, query.machine.n_gpus);
  };
  llama_cpp::Fitted fitted = llama_cpp::fit_to_gpus(task, settings);
  fitted.context_tokens /= sharing;
  return fitted;
}

std::optional<std::int64_t> longer_if_named(const Query& query,
                                            const CacheCase& cache_case,
                                            std::int64_t context_tokens) {
  for (std::int64_t named = query.model.spec.trained_context_tokens; named > context_tokens;
       named /= 2) {
    const Query placed = placed_as(query, auto_fitted(query, cache_case, named));
    if (fits(plan_of(placed, cache_case)->evaluate(named).ledger, query.machine.capacities)) {
      return named;
    }
  }
  return std::nullopt;
}

Query placed_as(Query query, const llama_cpp::Fitted& chosen) {
  query.settings = chosen.settings;
  query.auto_context_tokens.reset();
  return query;
}

Query placed_for(const Query& query, const CacheCase& cache_case) {
  return query.auto_context_tokens
             ? placed_as(query, auto_fitted(query, cache_case, query.auto_context_tokens))
             : query;
}

}  // namespace kvfathom::cli
