// Engine `ideal`: the formula with nothing added.
#pragma once

#include <memory>

#include "model/engine/engine.h"

namespace kvfathom {

/// Weights as stored, K and V of exactly the tokens asked for, states in f32 and convolution
/// history in 2 bytes; no padding, no compute buffers but what a scheme itself writes out, no
/// runtime. What every engine is measured against. Several devices hold whole layers each, in
/// proportion to their memory; with tensor_parallel, so many share the layers' heads as on the
/// serving engines. InputError if the model has no tensors or the devices do not divide.
[[nodiscard]] std::unique_ptr<MemoryPlan> prepare_ideal(const ModelSpec& model,
                                                        const EngineSettings& settings);

}  // namespace kvfathom
