// The program: arguments in, text and an exit status out.
#pragma once

#include <string>
#include <vector>

#include "cli/console.h"

namespace kvfathom::cli {

/// Runs `kvfathom` with the arguments behind the program's name. Never throws; the status is that
/// of the contract (0 done and fits, 1 does not fit, 2 input, 3 not understood, 4 machine).
[[nodiscard]] int run(const std::vector<std::string>& arguments, Console& console);

}  // namespace kvfathom::cli
