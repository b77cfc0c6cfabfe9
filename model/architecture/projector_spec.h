// A vision tower or an audio encoder with its projector, as a file beside the language model holds
// them; a file may hold one of each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/architecture/tensor.h"

namespace kvfathom {

enum class Modality : std::uint8_t { vision, audio };

struct ProjectorSpec {
  Modality modality = Modality::vision;
  std::string type;  ///< "qwen3vl_merger", "gemma3", "ultravox", ..: decides the graph
  std::int64_t n_layers = 0;
  std::int64_t hidden_size = 0;
  std::int64_t n_heads = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t image_pixels = 0;           ///< of a side; 0: any
  std::int64_t patch_pixels = 0;           ///< of a side
  std::int64_t merged_patches = 0;         ///< of a side, into one token; 0: the type's own
  std::int64_t full_attention_period = 0;  ///< others see windows; 0: all see the whole image
  std::int64_t mel_bands = 0;              ///< of audio: values of a frame
  std::int64_t stacked_frames = 1;         ///< of audio: positions that become one token
  std::vector<Tensor> tensors{};           ///< its own, of those that are stored
};

}  // namespace kvfathom
