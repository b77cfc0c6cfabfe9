// Engine `tensorrt-llm`: blocks of cache in a share of what weights and activations leave free.
#pragma once

#include <memory>

#include "model/engine/engine.h"

namespace kvfathom {

/// The pool is kv_cache_free_gpu_memory_fraction (default 0.9) of the free memory, in blocks of 32
/// tokens. Unsupported: sliding windows and recurrent states, GGUF weights, other cache layouts.
[[nodiscard]] std::unique_ptr<MemoryPlan> prepare_tensorrt_llm(const ModelSpec& model,
                                                               const EngineSettings& requested);

}  // namespace kvfathom
