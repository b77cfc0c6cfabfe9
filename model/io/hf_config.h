// Hugging Face config.json -> ModelSpec.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/architecture/model_spec.h"

namespace kvfathom {

/// Reads `path`, a config.json under any name or a folder that holds one. Each model_type has a
/// translation of its own; one without is Unsupported, with the list of those there are. A field
/// that is missing, of the wrong kind or out of range is an InputError that names it. What a file
/// leaves to its configuration class is filled in as that class does.
[[nodiscard]] ModelSpec read_hf_config(const std::string& path);

/// The same from text; `source` is what messages call it.
[[nodiscard]] ModelSpec read_hf_config_text(std::string_view json, const std::string& source);

/// Every model_type that has a translation, sorted.
[[nodiscard]] std::vector<std::string_view> hf_model_types();

}  // namespace kvfathom
