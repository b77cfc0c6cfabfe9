// data/quality/*.json: published figures of lossy schemes.
#pragma once

#include <string>
#include <vector>

#include "model/cache/quality.h"

namespace kvfathom {

/// Reads a file of figures; InputError with file and field for what is no such file.
[[nodiscard]] std::vector<cache::Evidence> read_quality(const std::string& path);

}  // namespace kvfathom
