// How fast the answers of `fit --with-speed` run, by the laws of `kvfathom speed`.
#pragma once

#include <vector>

#include "cli/fit.h"
#include "cli/json_writer.h"
#include "cli/table.h"

namespace kvfathom::cli {

/// Prices the answer of a query whose layers are placed; what has no law leaves its reason.
void add_speed(const Query& query, FitAnswer& answer);

/// Columns for a table of answers. TTFT's interval gives way before all that ranks below
/// `kTtftInterval`.
inline constexpr int kTtftInterval = 9;
void add_speed_columns(Table& table);
void add_speed_cells(std::vector<Cell>& row, const FitAnswer& answer, Style style);

enum class RowsAre { schemes, engines };
/// What the columns mean, where the times come from, and which rows have none and why: nothing
/// where no speed was asked for.
void print_speed_notes(Console& console, const std::vector<FitAnswer>& answers, RowsAre rows);

/// Adds "speed", null where there is none, and then "speed_refused" with the reason, if any.
void add_speed_json(Json& json, const FitAnswer& answer);

}  // namespace kvfathom::cli
