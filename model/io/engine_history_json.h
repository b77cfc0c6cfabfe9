// Reads data/engines/<engine>.json.
#pragma once

#include <string>

#include "model/engine/history.h"

namespace kvfathom {

/// Throws InputError naming file and field.
[[nodiscard]] EngineHistory read_engine_history(const std::string& path);

}  // namespace kvfathom
