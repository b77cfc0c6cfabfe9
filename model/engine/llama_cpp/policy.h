// Engine `llama.cpp`: one device or the host, all layers.
#pragma once

#include <memory>

#include "model/engine/engine.h"

namespace kvfathom {

/// What llama-server of the asked build allocates. Weights, cache and state follow the loader and
/// the cache constructors; the compute buffers come from emulating ggml's graph allocator on the
/// model's own graph. Throws Unsupported for an architecture without a graph here, InputError for
/// what llama.cpp itself refuses.
[[nodiscard]] std::unique_ptr<MemoryPlan> prepare_llama_cpp(const ModelSpec& model,
                                                            const EngineSettings& settings);

}  // namespace kvfathom
