// `fit --best-quant`: the finest types of weights and cache that hold a context on a machine.
#pragma once

#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/query.h"
#include "model/memory/finest_pair.h"

namespace kvfathom::cli {

/// One type for the weights with one for the cache.
struct QuantAnswer {
  std::string weights;
  CacheCase cache_case;
  SchemeLabel label;
  PrecisionPair pair;
  MemoryReport report;  ///< at the context that is asked about
  std::int64_t missing_bytes = 0;
  std::string command;
};

struct RefusedWeights {
  std::string weights;
  std::string reason;
};

struct QuantSearch {
  std::int64_t context_tokens = 0;
  std::vector<QuantAnswer> answers;
  std::vector<PrecisionPair> pairs;  ///< of the answers
  std::vector<RefusedWeights> refused;
};

/// Why this one, in a sentence; where nothing fits, what the nearest lacks on each device, as its
/// ledger says it and by the high bounds.
[[nodiscard]] std::string best_quant_sentence(const QuantSearch& search, const Machine& machine);
/// The one that lacks least, where nothing fits.
[[nodiscard]] const QuantAnswer& nearest_to_fit(const QuantSearch& search);

void print_best_quant(Console& console, const Query& query, const QuantSearch& search);

}  // namespace kvfathom::cli
