// Matrices that are elsewhere than their layers, as llama-server is told of them.
#pragma once

#include <span>
#include <string>

#include "model/engine/settings.h"

namespace kvfathom::llama_cpp {

/// --override-tensor for all of `moved`, with a blank before; nothing for none.
[[nodiscard]] std::string override_options(std::span<const MovedLayer> moved);

}  // namespace kvfathom::llama_cpp
