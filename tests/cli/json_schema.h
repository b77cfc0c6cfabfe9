// Checks a JSON document against the subset of JSON Schema (draft 2020-12) that data/schemas uses.
// Debian 12 packages no C++ validator for that draft, and the subset is small; a keyword outside
// it is a fault, so that a schema cannot promise what is not checked.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace kvfathom::testing {

/// Every fault as "path: what is wrong"; empty if the document is valid.
[[nodiscard]] std::vector<std::string> schema_faults(const nlohmann::json& document,
                                                     const nlohmann::json& schema);

}  // namespace kvfathom::testing
