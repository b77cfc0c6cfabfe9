// Engine `vllm`: a share of the device; weights, profiled peaks, and blocks of cache in the rest.
#pragma once

#include <memory>
#include <optional>

#include "model/engine/engine.h"
#include "model/engine/serving/size_default.h"

namespace kvfathom {

/// Weights of a rank and blocks of cache are exact; the activation peak, CUDA graphs and what is
/// outside of torch are modelled. Unsupported: GGUF weights, schemes and versions without a rule.
[[nodiscard]] std::unique_ptr<MemoryPlan> prepare_vllm(const ModelSpec& model,
                                                       const EngineSettings& requested);

/// The step of a device of these settings, where it is larger than a smaller device's and no
/// setting says how large it is.
[[nodiscard]] std::optional<serving::SizeDefault> vllm_size_default(const EngineSettings& settings);

}  // namespace kvfathom
