// What an engine adds, as data/engines/speed/*.json hold it ("kvfathom.engine-speed/1").
#pragma once

#include <string>

#include "model/latency/engine_law.h"

namespace kvfathom {

/// InputError naming file and field for anything that is not such a document: an unknown field, a
/// value that is no positive number, an interval that does not hold its value.
[[nodiscard]] EngineSpeed read_engine_speed(const std::string& path);
[[nodiscard]] EngineSpeed parse_engine_speed(const std::string& text, const std::string& file);

[[nodiscard]] std::string write_engine_speed(const EngineSpeed& speed);

}  // namespace kvfathom
