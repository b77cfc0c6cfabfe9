#include "model/io/adapter_file.h"

#include <algorithm>
#include <filesystem>

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
    AdapterFile result{0, true};
    for (const GgufTensor& tensor : file.header.tensors) {
      result.bytes += tensor.data_bytes;
    }
    return result;
  }
  const std::string file =
      is_directory(path) ? (std::filesystem::path(path) / "adapter_model.safetensors").string()
                         : path;
  const SafetensorsWeights weights = read_safetensors_weights(file);
  const bool adapter = std::ranges::any_of(weights.tensors, [](const Tensor& tensor) {
    return tensor.name.find("lora_A") != std::string::npos;
  });
  if (!adapter) {
    throw InputError(file, "no adapter: no tensor is a lora_A", "a PEFT adapter's file");
  }
  return {weights.bytes, false};
}

}  // namespace kvfathom
