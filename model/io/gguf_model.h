// What a GGUF file says its model is.
#pragma once

#include <span>
#include <string>

#include "model/architecture/model_spec.h"
#include "model/io/gguf.h"

namespace kvfathom {

/// The model in `path`, one GGUF file or any shard of a split one; ModelSpec::tensors holds every
/// stored tensor. Keys and per-layer arrays decide, tensors tell what no key says (biases, norms,
/// ties, gates), and where the two contradict each other the file is refused.
///
/// Throws InputError for a file that is damaged or lacks a key, Unsupported for an architecture or
/// a tensor type that is not known.
[[nodiscard]] ModelSpec read_gguf(const std::string& path);

/// The same from headers at hand: all shards in order, the first with the keys.
[[nodiscard]] ModelSpec model_of_gguf(std::span<const GgufHeader* const> shards);

}  // namespace kvfathom
