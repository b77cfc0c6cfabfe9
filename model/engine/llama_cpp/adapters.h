// Low-rank adapters in llama.cpp: each pair in the buffer of the matrix that it adapts, or, where
// that one is repacked for the CPU, in an ordinary one of the host.
//
// Source: src/llama-adapter.cpp (0650ea8c): llama_adapter_lora_init_impl.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/engine/settings.h"
#include "model/weights/lora.h"

namespace kvfathom::llama_cpp {

struct AdapterBytes {
  std::vector<std::int64_t> gpu_bytes;  ///< one per GPU
  std::int64_t host_bytes = 0;
  /// The most that one layer has on the host: a large batch takes copies of it to the first GPU.
  std::int64_t largest_host_layer_bytes = 0;
};

/// What `matrices` take where the settings put the layers. Their sizes are in units of
/// `unit_bytes`.
[[nodiscard]] AdapterBytes adapter_bytes(const ModelSpec& model,
                                         const EngineSettings& settings,
                                         std::span<const LoraMatrix> matrices,
                                         std::int64_t unit_bytes);

}  // namespace kvfathom::llama_cpp
