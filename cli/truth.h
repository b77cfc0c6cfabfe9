// Logged truth: settings of an engine and the sizes it printed for them.
#pragma once

#include <string>
#include <vector>

#include "model/engine/settings.h"

namespace kvfathom::cli {

/// One number that an engine printed.
struct LoggedSize {
  std::string component;          ///< "weights", "cache", "state", "compute (gpu)", ...
  double bytes = 0;               ///< as logged
  double resolution_bytes = 1.0;  ///< what the log rounds to: 1, or 0.01 MiB
};

struct TruthRow {
  std::string id;
  std::string model;    ///< catalog id
  std::string weights;  ///< recipe; empty: not known, so weights and compute are not compared
  std::string engine;
  EngineSettings settings;  ///< n_gpus 0: on the host
  std::int64_t context_tokens = 0;
  double available_bytes = 0;  ///< what the engine logged as left for its cache; 0: not logged
  double available_resolution_bytes = 0;  ///< what that was rounded to
  bool planned = true;                    ///< false: the engine refused these settings
  std::string unpredictable;  ///< why nothing can be said of the row; empty: something can
  std::vector<LoggedSize> sizes;
};

/// Every row of llamacpp_ledger.tsv and of the .jsonl files in `folder`, in that order.
/// InputError naming file, line and field for anything that does not read as such.
[[nodiscard]] std::vector<TruthRow> read_truth(const std::string& folder);

}  // namespace kvfathom::cli
