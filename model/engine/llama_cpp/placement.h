// Where the settings put a model's layers, in the engine's words.
#pragma once

#include <optional>
#include <string>

#include "model/engine/engine.h"
#include "model/engine/llama_cpp/weights.h"

namespace kvfathom::llama_cpp {

/// Layers are not simply all on one device.
[[nodiscard]] bool is_spread(const EngineSettings& settings);

[[nodiscard]] LayerSplit split_of(const EngineSettings& settings);

/// InputError for more GPUs than llama.cpp takes and for layers or experts that do not exist.
void refuse_placement(const ModelSpec& model, const EngineSettings& settings);

/// What each device got; nothing if all layers are on one.
[[nodiscard]] std::optional<Placement> placement_of(const LayerPlaces& places,
                                                    std::int64_t n_layers);

/// llama-server's options for it, each with a blank before.
[[nodiscard]] std::string placement_options(const EngineSettings& settings, std::int64_t n_layers);

}  // namespace kvfathom::llama_cpp
