// The graphs of audio encoders (llama.cpp tools/mtmd/models/whisper-enc.cpp, 0c07b903), of the kind
// that Whisper's is: shapes only.
#pragma once

#include "model/architecture/projector_spec.h"
#include "model/engine/llama_cpp/graph/tensor_graph.h"

namespace kvfathom::llama_cpp {

/// Whether the type has a graph here: ultravox, qwen2a or voxtral.
[[nodiscard]] bool has_audio_graph(const ProjectorSpec& projector);

/// The graph for the half minute of sound that the engine warms up with.
[[nodiscard]] TensorGraph audio_graph(const ProjectorSpec& projector, bool flash_attention);

}  // namespace kvfathom::llama_cpp
