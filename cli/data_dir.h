// Where the program's data files are: catalogs, engine tables, schemas, truth rows.
#pragma once

#include <filesystem>

namespace kvfathom {

/// The first that exists of: $KVFATHOM_DATA_DIR (must exist if set), ../share/kvfathom beside the
/// installed executable, the source tree the program was built from. Throws InputError for a bad
/// $KVFATHOM_DATA_DIR, MachineError when there is none at all.
[[nodiscard]] std::filesystem::path data_directory();

/// The same decision with everything it depends on passed in. `environment` may be null;
/// `executable` may be empty.
[[nodiscard]] std::filesystem::path data_directory(const char* environment,
                                                   const std::filesystem::path& executable,
                                                   const std::filesystem::path& build_data);

}  // namespace kvfathom
