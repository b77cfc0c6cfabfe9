#include "cli/data_dir.h"

#include <cstdlib>
#include <system_error>

#include "model/error.h"

namespace kvfathom {

namespace fs = std::filesystem;

fs::path data_directory(const char* environment,
                        const fs::path& executable,
                        const fs::path& build_data) {
  std::error_code ignored;
  if (environment != nullptr && *environment != '\0') {
    if (!fs::is_directory(environment, ignored)) {
      throw InputError(
          "KVFATHOM_DATA_DIR", "\"" + std::string(environment) + "\" is no directory", "");
    }
    return environment;
  }
  fs::path installed = executable.parent_path().parent_path() / "share" / "kvfathom";
  if (!executable.empty() && fs::is_directory(installed, ignored)) {
    return installed;
  }
  if (fs::is_directory(build_data, ignored)) {
    return build_data;
  }
  throw MachineError("data directory",
                     "neither " + installed.string() + " nor " + build_data.string() + " exists",
                     "set KVFATHOM_DATA_DIR to the folder that holds hardware/ and models/");
}

fs::path data_directory() {
  std::error_code ignored;  // no /proc: as if not installed
  // getenv is not safe beside setenv; the program never sets a variable.
  return data_directory(std::getenv("KVFATHOM_DATA_DIR"),  // NOLINT(concurrency-mt-unsafe)
                        fs::read_symlink("/proc/self/exe", ignored),
                        KVFATHOM_BUILD_DATA_DIR);
}

}  // namespace kvfathom
