// Weight bytes of a safetensors checkpoint, from its index and headers alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/architecture/tensor.h"

namespace kvfathom {

/// What a checkpoint stores. Names are the checkpoint's own, not GGUF's; shapes are turned to
/// ggml order (contiguous axis first), axes beyond the fourth are multiplied into it.
struct SafetensorsWeights {
  std::vector<Tensor> tensors;     ///< sorted by name
  std::int64_t bytes = 0;          ///< of all tensors' data
  std::vector<std::string> files;  ///< the files they are in, sorted
};

/// `path`: a .safetensors file, a model.safetensors.index.json, or a folder with either. Reads
/// the index and the headers, never the data. A shard that the index names and the folder lacks,
/// a tensor that its shard lacks, data cut short: InputError. An element type kvfathom has no
/// name for: Unsupported.
[[nodiscard]] SafetensorsWeights read_safetensors_weights(const std::string& path);

}  // namespace kvfathom
