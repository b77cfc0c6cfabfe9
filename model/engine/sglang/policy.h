// Engine `sglang`: weights and token pool in a static share of the device.
#pragma once

#include <memory>
#include <optional>

#include "model/engine/engine.h"
#include "model/engine/serving/size_default.h"

namespace kvfathom {

/// The token pool has pages of one token. Windows have a pool of their own in the architectures
/// that the engine lists, and hold every token in others. Recurrent states have one of slots, five
/// for each request. Unsupported: states of other kinds than Mamba-2 and delta rules, and states in
/// pipeline stages; chunked windows; windows in pipeline stages
/// or beside layers that share a cache; GGUF weights; other cache layouts.
[[nodiscard]] std::unique_ptr<MemoryPlan> prepare_sglang(const ModelSpec& model,
                                                         const EngineSettings& requested);

/// The chunk of a device of these settings, where it is larger than a smaller device's and no
/// setting says how large it is.
[[nodiscard]] std::optional<serving::SizeDefault> sglang_size_default(
    const EngineSettings& settings);

/// The default of --mem-fraction-static for a device and its ranks: activations by the size of a
/// chunk (the one asked for, else the device's) and CUDA graphs by the largest batch are kept free
/// (server_args.py since github.com/sgl-project/sglang/pull/10975; the constant and the share per
/// rank are recalled).
[[nodiscard]] double sglang_default_share(std::int64_t device_memory_bytes,
                                          std::int64_t tensor_parallel,
                                          std::int64_t pipeline_parallel,
                                          std::optional<std::int64_t> chunk_tokens);

}  // namespace kvfathom
