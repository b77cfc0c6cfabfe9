// `fit --smallest-gpu`: the smallest of the catalog's GPUs, and number of it, that holds a context.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/query.h"
#include "model/memory/smallest_machine.h"

namespace kvfathom::cli {

/// One GPU of the catalog, so many times, with what is asked for on it.
struct GpuOffer {
  const HardwareSpec* device = nullptr;
  int n_gpus = 1;
  const MemoryReport* report = nullptr;
  std::int64_t headroom_bytes = 0;  ///< of the fullest device, by high bounds; < 0: it lacks that
};

/// So many of each, which the engine refuses on every GPU.
struct RefusedCount {
  int n_gpus = 1;
  std::string reason;
};

struct GpuSearch {
  CacheCase cache_case;
  SchemeLabel label;
  std::int64_t context_tokens = 0;
  std::vector<GpuOffer> offers;
  std::vector<RefusedCount> refused;
  SmallestMachine found;  ///< indices into the offers
};

/// The query with its machine, and what an engine needs to know of it, replaced by the offer's.
void place_on(Query& query, const HardwareSpec& device, int n_gpus);

/// The device of the machine that has the least left, or lacks most; by high bounds.
[[nodiscard]] Device fullest_device(const MemoryLedger& ledger, const Machine& machine);

/// The answer in one sentence, and in another what the next smaller one lacks, by line.
[[nodiscard]] std::string smallest_sentence(const GpuSearch& search);
[[nodiscard]] std::string below_sentence(const GpuSearch& search);

/// `query` is left on the smallest machine, or on the largest where nothing fits.
void print_smallest_gpu(Console& console, Query& query, const GpuSearch& search);

}  // namespace kvfathom::cli
