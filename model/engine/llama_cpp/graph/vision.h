// The graphs of vision towers (llama.cpp tools/mtmd/models/, clip.cpp: build_vit, build_attn,
// build_ffn, build_norm), as the pass programs of decoders: shapes only.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "model/architecture/projector_spec.h"
#include "model/engine/llama_cpp/graph/tensor_graph.h"

namespace kvfathom::llama_cpp {

/// Pixels of a side of the image that the engine warms up with; nothing for types without a graph.
[[nodiscard]] std::optional<std::int64_t> warm_up_pixels(const ProjectorSpec& projector);

/// The graph for the warm-up image.
[[nodiscard]] TensorGraph vision_graph(const ProjectorSpec& projector, bool flash_attention);

}  // namespace kvfathom::llama_cpp
