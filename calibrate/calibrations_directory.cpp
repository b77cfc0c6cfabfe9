#include "calibrate/calibrations_directory.h"

#include <cstdlib>

namespace kvfathom {

std::filesystem::path calibrations_directory() {
  // getenv is not safe beside setenv; the programs never set a variable.
  const char* const data = std::getenv("XDG_DATA_HOME");  // NOLINT(concurrency-mt-unsafe)
  const char* const home = std::getenv("HOME");           // NOLINT(concurrency-mt-unsafe)
  std::filesystem::path base;
  if (data != nullptr && *data != '\0') {
    base = data;
  } else if (home != nullptr && *home != '\0') {
    base = std::filesystem::path(home) / ".local" / "share";
  }
  return base.empty() ? base : base / "kvfathom" / "calibrations";
}

}  // namespace kvfathom
