// The graph of Gemma-4's audio encoder (llama.cpp tools/mtmd/models/gemma4a.cpp, 05e72a1c): a
// conformer whose attention sees chunks of 12 positions and the 12 before them.
#pragma once

#include "model/engine/llama_cpp/graph/vision_builder.h"

namespace kvfathom::llama_cpp {

/// From so many frames of sound to tokens of the language model.
[[nodiscard]] TensorId conformer(VisionBuilder& builder, std::int64_t n_frames);

/// Positions that so many frames become: two convolutions over every other one.
[[nodiscard]] constexpr std::int64_t conformer_positions(std::int64_t n_frames) {
  return n_frames / 4;
}

}  // namespace kvfathom::llama_cpp
