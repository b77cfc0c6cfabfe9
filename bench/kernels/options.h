// The command line of kvfathom-bench, and its configuration file.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "calibrate/cases/case.h"

namespace kvfathom::bench {

struct Options {
  std::vector<std::string> kernels;  ///< empty: all
  std::vector<std::string> formats;  ///< empty: all
  bool tiny = false;                 ///< the smallest shape of each kernel
  /// Dimensions that replace those of a kernel's own shapes; one entry a shape wanted.
  std::vector<std::vector<std::pair<std::string, std::int64_t>>> shapes;
  bool on_cpu = true;
  bool on_cuda = true;
  bool must_have_cuda = false;
  int n_threads = 0;
  std::optional<std::int64_t> rotation_bytes;  ///< nothing: four times the last cache
  double max_seconds = 2.0;                    ///< a case's time, verification apart
  bool list = false;
  bool help = false;
  std::vector<std::string> library_arguments;  ///< --benchmark_*
};

/// Throws InputError, one line that names what is allowed.
[[nodiscard]] Options parse_options(int argc, const char* const* argv);
void print_help(std::ostream& out);

/// One case to run: a kernel's name and what it is asked for.
struct PlannedCase {
  const KernelBench* kernel = nullptr;
  Request request;
  [[nodiscard]] std::string name() const;
};

/// The cases that the options choose. Throws InputError where a name chooses nothing.
[[nodiscard]] std::vector<PlannedCase> plan_cases(const Options& options);

}  // namespace kvfathom::bench
