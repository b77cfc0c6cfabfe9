// The graphs of audio encoders: of the kind that Whisper's is (llama.cpp
// tools/mtmd/models/whisper-enc.cpp, 0c07b903), and Gemma-4's. Shapes only.
#pragma once

#include "model/architecture/projector_spec.h"
#include "model/engine/llama_cpp/graph/tensor_graph.h"

namespace kvfathom::llama_cpp {

/// Whether the type has a graph here: gemma4a, qwen2a, ultravox or voxtral.
[[nodiscard]] bool has_audio_graph(const ProjectorSpec& projector);

/// The graph for the half minute of sound that the engine warms up with.
[[nodiscard]] TensorGraph audio_graph(const ProjectorSpec& projector, bool flash_attention);

}  // namespace kvfathom::llama_cpp
