// The subcommands. Each reads its options, writes to the console and returns the exit status;
// refusals are thrown (model/error.h).
#pragma once

#include "cli/console.h"
#include "cli/options.h"

namespace kvfathom::cli {

[[nodiscard]] int crossover(const Options& options, Console& console);
[[nodiscard]] int fit(const Options& options, Console& console);
/// The other inverses of `fit`.
[[nodiscard]] int fit_smallest_gpu(const Options& options, Console& console);
[[nodiscard]] int fit_best_quant(const Options& options, Console& console);
[[nodiscard]] int memory(const Options& options, Console& console);
[[nodiscard]] int inspect(const Options& options, Console& console);
[[nodiscard]] int list(const Options& options, Console& console);
[[nodiscard]] int speed(const Options& options, Console& console);
[[nodiscard]] int validate(const Options& options, Console& console);

}  // namespace kvfathom::cli
