// The parts that several JSON documents share (data/schemas/common is their contract).
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/console.h"
#include "cli/query.h"
#include "cli/speed_plan.h"
#include "model/error.h"
#include "model/latency/estimate.h"

namespace kvfathom::cli {

using Json = nlohmann::ordered_json;

/// {"schema": "kvfathom.<name>/1", "kvfathom_version": ...}
[[nodiscard]] Json document(const std::string& name);

[[nodiscard]] Json model_json(const ModelSpec& model);
[[nodiscard]] Json engine_json(const Query& query);
[[nodiscard]] Json scheme_json(const SchemeLabel& label);
[[nodiscard]] Json cache_json(const CacheReport& cache);
[[nodiscard]] Json ledger_json(const MemoryLedger& ledger);
/// One entry per device of the ledger; capacity and fits are null where no capacity is known.
[[nodiscard]] Json device_totals_json(const MemoryLedger& ledger, const Machine& machine);
[[nodiscard]] Json placement_json(const std::optional<Placement>& placement);
[[nodiscard]] Json estimate_json(const Estimate& estimate);
/// [{"from_tokens": ..., "to_tokens": ... or null}]
[[nodiscard]] Json spans_json(const std::vector<Span>& spans);
/// A string, or null if it is empty.
[[nodiscard]] Json text_or_null(const std::string& text);

[[nodiscard]] Json error_json(const Error& error);

/// Appends the document and a newline to stdout. Bytes that are no UTF-8 are replaced.
void print_json(Console& console, const Json& json);

}  // namespace kvfathom::cli
