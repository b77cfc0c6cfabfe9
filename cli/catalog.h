// The catalog of models that ships.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/architecture/model_spec.h"

namespace kvfathom::cli {

/// Ids in data/models, sorted.
[[nodiscard]] std::vector<std::string> catalog_model_ids();

[[nodiscard]] ModelSpec read_catalog_model(const std::string& id);

/// The id that a person's name for a model means: the id itself, a Hugging Face id with or without
/// its owner, in any case. Nothing if no catalog entry has it.
[[nodiscard]] std::optional<std::string> catalog_model_id(const std::string& name);

}  // namespace kvfathom::cli
