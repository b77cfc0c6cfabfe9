// The ledger as a person reads it: GiB by device, what is free, and how sure each line is.
#pragma once

#include "cli/console.h"
#include "cli/query.h"

namespace kvfathom::cli {

/// Behind the devices comes what is in a tier that is none of them.
void print_ledger(Console& console, const MemoryReport& report, const Machine& machine);

/// A horizontal bar of `cells` cells, `share` of them (0 to 1) filled.
[[nodiscard]] std::string bar(double share, int cells, bool utf8);

}  // namespace kvfathom::cli
