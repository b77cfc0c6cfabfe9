// The answers of `fit` and how they are printed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/query.h"

namespace kvfathom::cli {

struct FitAnswer {
  CacheCase cache_case;
  SchemeLabel label;
  std::int64_t max_context_tokens = 0;  ///< 0: not even one token fits
  std::int64_t sequences = 0;
  std::string limited_by;              ///< memory, model, weights; with --users also engine
  MemoryReport report;                 ///< at the answer; at one token where nothing fits
  std::optional<Placement> placement;  ///< where layers are not simply all on one device
  std::string command;
};

void print_fit(Console& console,
               const Query& query,
               const Options& options,
               const std::vector<FitAnswer>& answers);

}  // namespace kvfathom::cli
