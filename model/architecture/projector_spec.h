// A vision tower with its projector, as a file beside the language model holds them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/architecture/tensor.h"

namespace kvfathom {

struct ProjectorSpec {
  std::string type;  ///< "qwen3vl_merger", "gemma3", ..: decides the graph
  std::int64_t n_layers = 0;
  std::int64_t hidden_size = 0;
  std::int64_t n_heads = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t image_pixels = 0;           ///< of a side; 0: any
  std::int64_t patch_pixels = 0;           ///< of a side
  std::int64_t merged_patches = 0;         ///< of a side, into one token; 0: the type's own
  std::int64_t full_attention_period = 0;  ///< others see windows; 0: all see the whole image
  bool has_audio = false;                  ///< an audio encoder is in the file too
  std::vector<Tensor> tensors;             ///< all that are stored
};

}  // namespace kvfathom
