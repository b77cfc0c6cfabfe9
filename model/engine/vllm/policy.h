// Engine `vllm`: a share of the device; weights, profiled peaks, and blocks of cache in the rest.
#pragma once

#include <memory>

#include "model/engine/engine.h"

namespace kvfathom {

/// Weights of a rank and blocks of cache are exact; the activation peak, CUDA graphs and what is
/// outside of torch are modelled. Unsupported: GGUF weights, schemes and versions without a rule.
[[nodiscard]] std::unique_ptr<MemoryPlan> prepare_vllm(const ModelSpec& model,
                                                       const EngineSettings& requested);

}  // namespace kvfathom
