// Files that an engine loads beside a model: adapters, from their headers alone.
#pragma once

#include <string>
#include <vector>

#include "model/architecture/tensor.h"

namespace kvfathom {

struct AdapterFile {
  std::string path;
  std::vector<Tensor> tensors;  ///< named as in the file
  bool gguf = false;
};

/// `path`: a GGUF adapter (general.type "adapter", as convert_lora_to_gguf writes it), a PEFT
/// folder with adapter_model.safetensors, or that file. Anything else is an InputError.
[[nodiscard]] AdapterFile read_adapter_file(const std::string& path);

}  // namespace kvfathom
