#include "cli/larger_machine.h"

#include <algorithm>
#include <utility>

#include "model/error.h"

namespace kvfathom::cli {
namespace {

/// Up to whole hundredths of a GiB, as sizes are printed: what a person reads fits.
std::int64_t rounded_up(std::int64_t bytes) {
  constexpr std::int64_t kGiB = std::int64_t{1} << 30;
  constexpr std::int64_t kParts = 100;
  const std::int64_t parts = bytes / kGiB * kParts + (bytes % kGiB * kParts + kGiB - 1) / kGiB;
  return parts / kParts * kGiB + parts % kParts * kGiB / kParts;
}

/// What is kept from a device, or taken on it, stays so on a larger one.
Query with_memory(Query query, const std::vector<std::int64_t>& sizes) {
  Machine machine = query.machine;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    Capacity& capacity = machine.capacities[i];
    if (i < machine.devices.size()) {
      machine.devices[i].memory_bytes += sizes[i] - capacity.bytes;
    }
    capacity.bytes = sizes[i];
  }
  set_machine(query, std::move(machine));
  return query;
}

/// The sizes, where needed grown to what the ledger says that devices of these sizes hold.
std::vector<std::int64_t> grown(const Query& query,
                                const CacheCase& cache_case,
                                std::int64_t context_tokens,
                                std::vector<std::int64_t> sizes) {
  const MemoryLedger ledger =
      plan_of(with_memory(query, sizes), cache_case)->evaluate(context_tokens).ledger;
  const bool even = query.machine.uneven_memory().empty();
  std::int64_t largest = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const Capacity& capacity = query.machine.capacities[i];
    const std::int64_t needed = held(ledger, capacity).high_bytes;
    sizes[i] = needed > sizes[i] ? rounded_up(needed) : sizes[i];
    const bool is_gpu = capacity.device.index != Device::kHost;
    largest = is_gpu ? std::max(largest, sizes[i]) : largest;
  }
  for (std::size_t i = 0; even && i < sizes.size(); ++i) {
    const bool is_gpu = query.machine.capacities[i].device.index != Device::kHost;
    sizes[i] = is_gpu ? largest : sizes[i];
  }
  return sizes;
}

Machine of_so_many(const Machine& machine, int n_gpus) {
  Machine more = machine;
  more.n_gpus = n_gpus;
  more.devices.assign(static_cast<std::size_t>(n_gpus), machine.devices.front());
  more.capacities.clear();
  for (int gpu = 0; gpu < n_gpus; ++gpu) {
    more.capacities.push_back({Device{gpu}, machine.capacities.front().bytes});
  }
  if (machine.capacities.back().device.index == Device::kHost) {
    more.capacities.push_back(machine.capacities.back());
  }
  return more;
}

bool has_equal_gpus(const Machine& machine) {
  return machine.n_gpus > 0 && !machine.devices.empty() && !machine.host_shares_memory &&
         machine.uneven_memory().empty() &&
         std::ranges::all_of(machine.devices, [&](const HardwareSpec& device) {
           return device.name == machine.devices.front().name;
         });
}

}  // namespace

bool case_fits(const Query& query, const CacheCase& cache_case, std::int64_t context_tokens) {
  try {
    const auto plan = plan_of(query, cache_case);
    return fits(plan->evaluate(context_tokens).ledger, query.machine.capacities);
  } catch (const Error&) {
    return false;
  }
}

std::vector<std::int64_t> enough_memory(const Query& query,
                                        const CacheCase& cache_case,
                                        std::int64_t context_tokens) {
  constexpr int kMostSteps = 200;  // an engine that keeps 1 - u of a device takes 1 / u steps or so
  std::vector<std::int64_t> sizes;
  for (const Capacity& capacity : query.machine.capacities) {
    sizes.push_back(capacity.bytes);
  }
  try {
    // From below, each step no further than the least size that fits: what a ledger says of a
    // smaller device is no more than what it says of that one.
    for (int step = 0; step < kMostSteps; ++step) {
      std::vector<std::int64_t> next = grown(query, cache_case, context_tokens, sizes);
      if (next == sizes) {
        return sizes;
      }
      sizes = std::move(next);
    }
  } catch (const Error&) {
    return {};  // the engine refuses devices that differ so much
  }
  return {};
}

std::optional<GpuCount> enough_gpus(const Query& query,
                                    const CacheCase& cache_case,
                                    std::int64_t context_tokens) {
  constexpr std::int64_t kMostGpus = 16;
  const EngineSettings& asked = query.settings;
  const bool cuts = loads_checkpoints(*query.engine);
  const bool splits = query.engine->name == "llama.cpp" && !asked.gpu_layers &&
                      asked.cpu_moe_layers == 0 && !query.auto_context_tokens;
  if (!has_equal_gpus(query.machine) || cache_case.by_formula || !(cuts || splits)) {
    return std::nullopt;
  }
  const std::int64_t of_a_rank = cuts ? asked.pipeline_parallel * asked.data_parallel : 1;
  const std::int64_t has = cuts ? asked.tensor_parallel : query.machine.n_gpus;
  for (std::int64_t n = has + 1; n * of_a_rank <= kMostGpus; ++n) {
    const auto n_gpus = static_cast<int>(n * of_a_rank);
    Query more = query;
    more.settings.tensor_parallel = cuts ? n : 1;
    set_machine(more, of_so_many(query.machine, n_gpus));
    if (case_fits(more, cache_case, context_tokens)) {
      return GpuCount{n_gpus, more.settings.tensor_parallel};
    }
  }
  return std::nullopt;
}

}  // namespace kvfathom::cli
