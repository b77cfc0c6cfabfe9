// Engine `huggingface`: transformers' generate() with a DynamicCache, not compiled.
#pragma once

#include <memory>

#include "model/engine/engine.h"

namespace kvfathom {

/// K and V of exactly the tokens at hand in the cache's type (a latent layer caches every head);
/// the whole prompt goes through in one pass, so its activations grow with the context; eager
/// attention (--flash-attention off) holds a square of scores. Unsupported: recurrent states, more
/// than one device, GGUF weights.
[[nodiscard]] std::unique_ptr<MemoryPlan> prepare_huggingface(const ModelSpec& model,
                                                              const EngineSettings& requested);

}  // namespace kvfathom
