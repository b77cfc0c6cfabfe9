#include "model/io/adapter_file.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "model/error.h"
#include "model/io/file.h"
#include "model/io/gguf.h"
#include "model/io/safetensors.h"

namespace kvfathom {

AdapterFile read_adapter_file(const std::string& path) {
  if (path.ends_with(".gguf")) {
    const GgufFile file = open_gguf(path);
    const GgufValue* const type = file.header.find("general.type");
    const bool adapter = type != nullptr && !type->is_array && type->type == GgufType::string &&
                         type->data == "adapter";
    if (!adapter) {
      throw InputError(path, "no adapter: general.type is another", "an adapter's GGUF");
    }
    AdapterFile result{.path = path, .tensors = {}, .gguf = true};
    for (const GgufTensor& tensor : file.header.tensors) {
      result.tensors.push_back({std::string(tensor.name), tensor.shape, tensor.dtype});
    }
    return result;
  }
  const std::string file =
      is_directory(path) ? (std::filesystem::path(path) / "adapter_model.safetensors").string()
                         : path;
  SafetensorsWeights weights = read_safetensors_weights(file);
  const bool adapter = std::ranges::any_of(weights.tensors, [](const Tensor& tensor) {
    return tensor.name.find("lora_A") != std::string::npos;
  });
  if (!adapter) {
    throw InputError(file, "no adapter: no tensor is a lora_A", "a PEFT adapter's file");
  }
  return {.path = file, .tensors = std::move(weights.tensors), .gguf = false};
}

}  // namespace kvfathom
