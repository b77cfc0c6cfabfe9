#include "cli/remedies.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <utility>

#include "cli/auto_placement.h"
#include "cli/format.h"
#include "cli/larger_machine.h"
#include "cli/size_defaults.h"
#include "model/error.h"
#include "model/memory/inverse.h"

namespace kvfathom::cli {
namespace {

void add_cheaper_caches(const Query& query,
                        const CacheCase& cache_case,
                        std::int64_t context_tokens,
                        std::vector<std::string>& found) {
  if (cache_case.scheme != CacheScheme::native) {
    const CacheCase native{CacheScheme::native, cache_case.k, cache_case.v};
    if (case_fits(query, native, context_tokens)) {
      found.emplace_back("the model's own scheme (--scheme native)");
    }
  }
  const bool serving = loads_checkpoints(*query.engine);
  const std::array<DType, 2> types =
      serving ? std::array{DType::f8_e4m3, DType::nvfp4} : std::array{DType::q8_0, DType::q4_0};
  for (const DType type : types) {
    CacheCase smaller = cache_case;
    smaller.k = type;
    smaller.v = type;
    if (info(type).block_bytes * info(cache_case.k).block_elements <
            info(cache_case.k).block_bytes * info(type).block_elements &&
        case_fits(query, smaller, context_tokens)) {
      const std::string word(name(type));
      std::string remedy = "a ";
      remedy.append(word).append(" cache (--cache-type-k ").append(word);
      found.push_back(remedy.append(" --cache-type-v ").append(word).append(")"));
      return;
    }
  }
}

/// The largest usual recipe whose weights leave room; only where no file fixes the weights.
void add_smaller_weights(const Query& query,
                         const Options& options,
                         const CacheCase& cache_case,
                         std::int64_t context_tokens,
                         std::vector<std::string>& found) {
  constexpr std::array<const char*, 5> kGguf{"q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m"};
  constexpr std::array<const char*, 2> kCheckpoints{"fp8", "awq"};
  const std::span<const char* const> recipes =
      loads_checkpoints(*query.engine) ? std::span<const char* const>(kCheckpoints) : kGguf;
  if (!query.model.foretold) {
    return;
  }
  for (const char* recipe : recipes) {
    try {
      Query smaller = query;
      smaller.model = read_model(options.model, recipe);
      if (case_fits(smaller, cache_case, context_tokens)) {
        found.push_back(std::string(recipe) + " weights (--weights " + recipe + ")");
        return;
      }
    } catch (const Error&) {
      return;
    }
  }
}

/// Layers or experts on the host, as --auto would place them.
void add_placement(const Query& query,
                   const CacheCase& cache_case,
                   std::int64_t context_tokens,
                   std::vector<std::string>& found) {
  const EngineSettings& asked = query.settings;
  if (query.engine->name != "llama.cpp" || cache_case.by_formula || asked.n_gpus == 0 ||
      asked.gpu_layers || asked.cpu_moe_layers > 0 || query.auto_context_tokens ||
      query.machine.host_shares_memory || query.adapters ||
      query.settings.draft_tokens > 0) {  // no rule
    return;
  }
  Query with_auto = query;
  with_auto.machine.reserve_bytes =
      query.machine.reserve_bytes > 0 ? query.machine.reserve_bytes : llama_cpp::kFitMarginBytes;
  const Query placed = placed_as(with_auto, auto_fitted(with_auto, cache_case, context_tokens));
  if (!case_fits(placed, cache_case, context_tokens)) {
    return;
  }
  const auto plan = plan_of(placed, cache_case);
  const std::int64_t host =
      plan->evaluate(context_tokens).ledger.total(Device{Device::kHost}).high_bytes;
  const bool whole = placed.settings.gpu_layers.value_or(0) > n_layers(query.model.spec);
  found.push_back(std::string(whole ? "experts" : "layers") +
                  " on the host, as llama.cpp's fit puts them (--auto), with " + gib(host) +
                  " of host memory");
}

/// The steps of a smaller device, where the engine takes larger ones on this.
void add_smaller_steps(const Query& query,
                       const CacheCase& cache_case,
                       std::int64_t context_tokens,
                       std::vector<std::string>& found) {
  const auto smaller = smaller_steps(query);
  if (smaller && case_fits(smaller->query, cache_case, context_tokens)) {
    found.push_back("smaller steps (" + smaller->options + "): " + smaller->rule);
  }
}

/// A file of other types shrinks what every device holds of it alike.
void add_smaller_file(const Query& query,
                      const MemoryLedger& ledger,
                      std::vector<std::string>& found) {
  if (query.model.foretold) {
    return;
  }
  std::int64_t all = 0;
  double kept = 1.0;
  for (const Capacity& capacity : query.machine.capacities) {
    std::int64_t weights = 0;
    for (const LedgerLine& line : ledger.lines) {
      const bool counts = pays_for(capacity, line.device) && line.kind == LedgerKind::weights;
      weights += counts ? line.high_bytes : 0;
    }
    const std::int64_t missing = held(ledger, capacity).high_bytes - capacity.bytes;
    all = capacity.with_gpu0 ? weights : all + weights;
    if (missing >= weights && missing > 0) {
      return;
    }
    if (missing > 0) {
      kept = std::min(kept, static_cast<double>(weights - missing) / static_cast<double>(weights));
    }
  }
  if (kept < 1.0) {
    found.push_back("a file whose weights take at most " +
                    gib(static_cast<std::int64_t>(kept * static_cast<double>(all))) +
                    " instead of " + gib(all));
  }
}

void add_more_gpus(const Query& query,
                   const Options& options,
                   const CacheCase& cache_case,
                   std::int64_t context_tokens,
                   std::vector<std::string>& found) {
  const std::optional<GpuCount> enough = enough_gpus(query, cache_case, context_tokens);
  if (!enough) {
    return;
  }
  const std::string gpus = "--gpus " + std::to_string(enough->n_gpus);
  const std::string ranks = "--tensor-parallel " + std::to_string(enough->tensor_parallel);
  const bool cuts = loads_checkpoints(*query.engine);
  found.push_back(std::to_string(enough->n_gpus) + " such GPUs (" +
                  (!cuts              ? gpus
                   : options.gpu.gpus ? gpus + " " + ranks
                                      : ranks) +
                  ")");
}

/// "a device of 30.00 GiB, 6.01 GiB more"; equal ones once, others by name.
void add_larger_devices(const Query& query,
                        const CacheCase& cache_case,
                        std::int64_t context_tokens,
                        std::vector<std::string>& found) {
  const Machine& machine = query.machine;
  const std::vector<std::int64_t> enough = enough_memory(query, cache_case, context_tokens);
  const bool even = machine.uneven_memory().empty();
  std::string text;
  for (std::size_t i = 0; i < enough.size(); ++i) {
    const Capacity& capacity = machine.capacities[i];
    const bool told = even && i > 0 && capacity.device.index != Device::kHost;
    const std::int64_t more = enough[i] - capacity.bytes;
    if (more <= 0 || told) {
      continue;
    }
    const std::string size = gib(enough[i]);
    text += text.empty() ? "" : ", together with ";
    if (capacity.device.index == Device::kHost) {
      text += size + (machine.n_gpus == 0  ? " of memory"
                      : capacity.with_gpu0 ? " of memory in all"
                                           : " of host memory");
    } else if (machine.is_gpu_limited()) {
      text += "a limit of " + size + " for the GPU";
    } else if (!even) {
      text += name(capacity.device).append(" of ").append(size);
    } else {
      text += machine.n_gpus == 1 ? "a device of " + size
                                  : std::to_string(machine.n_gpus) + " devices of " + size;
    }
    const bool each = even && machine.n_gpus > 1 && capacity.device.index != Device::kHost;
    text += (each ? " each, " : ", ") + gib(more) + " more";
  }
  if (!text.empty()) {
    found.push_back(std::move(text));
  }
}

}  // namespace

std::vector<std::string> remedies(const Query& query,
                                  const Options& options,
                                  const CacheCase& cache_case,
                                  std::int64_t context_tokens) {
  std::vector<std::string> found;
  const auto plan = plan_of(query, cache_case);
  const std::int64_t least = query.settings.context_is_total ? query.settings.sequences : 1;
  const LongestContext longest = longest_context(
      *plan, query.machine.capacities, std::max<std::int64_t>(least, context_tokens), least);
  if (longest.context_tokens > 0 && longest.context_tokens < context_tokens) {
    found.push_back("a context of at most " + counted(longest.context_tokens, "token"));
  }
  add_smaller_steps(query, cache_case, context_tokens, found);
  add_cheaper_caches(query, cache_case, context_tokens, found);
  add_smaller_weights(query, options, cache_case, context_tokens, found);
  add_placement(query, cache_case, context_tokens, found);
  add_smaller_file(query, plan->evaluate(context_tokens).ledger, found);
  add_more_gpus(query, options, cache_case, context_tokens, found);
  add_larger_devices(query, cache_case, context_tokens, found);
  return found;
}

}  // namespace kvfathom::cli
