// Engine `sglang`: weights and token pool in a static share of the device.
#pragma once

#include <memory>

#include "model/engine/engine.h"

namespace kvfathom {

/// The token pool has pages of one token. Unsupported: sliding windows and recurrent states, whose
/// pools share memory by a ratio without a rule here; GGUF weights; other cache layouts.
[[nodiscard]] std::unique_ptr<MemoryPlan> prepare_sglang(const ModelSpec& model,
                                                         const EngineSettings& settings);

/// The default of --mem-fraction-static for a device and tensor-parallel size: activations and
/// CUDA graphs are kept free by chunk size and batch (server_args.py, mid 2025; recalled, not
/// looked up).
[[nodiscard]] double sglang_default_share(std::int64_t device_memory_bytes,
                                          std::int64_t tensor_parallel,
                                          std::int64_t pipeline_parallel);

}  // namespace kvfathom
