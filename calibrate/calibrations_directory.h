// Where one's own calibrations are kept.
#pragma once

#include <filesystem>

namespace kvfathom {

/// $XDG_DATA_HOME/kvfathom/calibrations, ~/.local/share where that is not set; empty: no home.
[[nodiscard]] std::filesystem::path calibrations_directory();

}  // namespace kvfathom
