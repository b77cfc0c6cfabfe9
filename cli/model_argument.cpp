#include "cli/model_argument.h"

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "cli/catalog.h"
#include "cli/format.h"
#include "cli/nearest.h"
#include "model/architecture/tensor_inventory.h"
#include "model/error.h"
#include "model/io/file.h"
#include "model/io/gguf_model.h"
#include "model/io/hf_config.h"
#include "model/io/inspect_json.h"
#include "model/io/safetensors.h"
#include "model/weights/recipe.h"

namespace kvfathom::cli {
namespace {

bool starts_with_gguf_magic(const std::string& path) {
  return MappedFile::open(path).bytes().starts_with("GGUF");
}

/// Documents of our own name their schema; nothing else does.
bool is_inspect_document(const std::string& path) {
  constexpr std::size_t kLargest = std::size_t{16} << 20;
  const MappedFile file = MappedFile::open(path);
  return file.bytes().substr(0, kLargest).find("\"kvfathom.inspect/") != std::string_view::npos;
}

bool looks_like_a_path(const std::string& text) {
  return text.starts_with("/") || text.starts_with(".") || text.starts_with("~") ||
         text.ends_with(".gguf") || text.ends_with(".json");
}

ModelArgument from_file(const std::string& path) {
  ModelArgument model;
  model.file = path;
  if (path.ends_with(".gguf") || starts_with_gguf_magic(path)) {
    model.spec = read_gguf(path);
    model.gguf = true;
  } else if (is_inspect_document(path)) {
    model.spec = read_inspect(path);
  } else {
    model.spec = read_hf_config(path);
  }
  return model;
}

bool holds_safetensors(const std::string& folder) {
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json")) {
      return true;
    }
  }
  return false;
}

ModelArgument from_folder(const std::string& path) {
  const std::string config = (std::filesystem::path(path) / "config.json").string();
  if (!is_regular_file(config)) {
    throw InputError(path, "a folder without config.json", "a model's folder, or a .gguf in it");
  }
  ModelArgument model;
  model.file = path;
  model.spec = read_hf_config(config);
  if (holds_safetensors(path)) {
    model.spec.tensors = read_safetensors_weights(path).tensors;
    model.checkpoint = true;
  }
  return model;
}

ModelArgument from_catalog(const std::string& name) {
  const auto id = catalog_model_id(name);
  if (!id) {
    throw InputError("MODEL",
                     "'" + printable(name) + "' is neither a file nor in the catalog",
                     "the nearest are " + joined(nearest(name, catalog_model_ids(), 3)));
  }
  ModelArgument model;
  model.spec = read_catalog_model(*id);
  model.file = *id;
  return model;
}

bool is_quantised(const Tensor& tensor) {
  return info(tensor.dtype).block_elements > 1;
}

/// What most of the weights' bytes are, for the headline of a file that says no more.
std::string main_type(const std::vector<Tensor>& tensors) {
  std::int64_t most = 0;
  std::string_view type = "none";
  for (const DTypeInfo& row : all_dtypes()) {
    std::int64_t bytes = 0;
    for (const Tensor& tensor : tensors) {
      bytes += tensor.dtype == row.dtype ? data_bytes(tensor) : 0;
    }
    if (bytes > most) {
      most = bytes;
      type = row.name;
    }
  }
  return std::string(type);
}

/// A name for the GGUF that somebody would have to make first.
std::string gguf_name(const ModelArgument& model) {
  std::string stem = std::filesystem::path(model.file).filename().string();
  for (const std::string_view ending : {".json", ".gguf"}) {  // "glm-4.7-flash" has no ending
    if (stem.ends_with(ending)) {
      stem.resize(stem.size() - ending.size());
    }
  }
  if (stem.empty() || stem == "config") {
    stem = model.spec.name.empty() ? "model" : model.spec.name;
  }
  std::replace(stem.begin(), stem.end(), ' ', '-');
  std::replace(stem.begin(), stem.end(), '/', '-');
  return stem + "-" + model.weights + ".gguf";
}

void apply_recipe(ModelArgument& model, const std::string& name) {
  const WeightRecipe recipe = parse_recipe(name);
  std::vector<Tensor> tensors = model.gguf ? model.spec.tensors : tensor_inventory(model.spec);
  if (model.gguf && std::any_of(tensors.begin(), tensors.end(), is_quantised)) {
    throw InputError("--weights",
                     "'" + recipe.name + "' for a file that is quantised already",
                     "leave it out, or give the unquantised model");
  }
  model.spec.tensors = quantised(model.spec, std::move(tensors), recipe);
  model.weights = recipe.name;
  model.foretold = true;
  if (recipe.format == WeightFormat::llama_quantize) {
    model.gguf = true;
    model.file = gguf_name(model);
  }
}

}  // namespace

ModelArgument read_model_spec(const std::string& argument) {
  if (is_directory(argument)) {
    return from_folder(argument);
  }
  std::error_code none;
  if (std::filesystem::exists(argument, none) || looks_like_a_path(argument)) {
    return from_file(argument);
  }
  return from_catalog(argument);
}

void foretell_gguf(ModelArgument& model) {
  model.spec.tensors = tensor_inventory(model.spec);
  model.weights = main_type(model.spec.tensors);
  model.foretold = true;
  model.checkpoint = false;
  model.file = gguf_name(model);
}

std::string served_name(const ModelArgument& model,
                        const std::string& argument,
                        bool packed_before) {
  constexpr std::string_view kSite = "https://huggingface.co/";
  const std::string& source = model.spec.source;
  std::string own = argument;
  if (!is_directory(argument) && source.starts_with(kSite)) {
    const std::string path = source.substr(kSite.size());
    const std::size_t name = path.find('/');
    own = name == std::string::npos ? argument : path.substr(0, path.find('/', name + 1));
  }
  return packed_before ? "<checkpoint of " + own + " in " + model.weights + ">" : own;
}

ModelArgument read_model(const std::string& argument, const Text& weights) {
  ModelArgument model = read_model_spec(argument);
  if (weights) {
    apply_recipe(model, *weights);
    return model;
  }
  if (!model.spec.tensors.empty()) {
    model.weights = main_type(model.spec.tensors);
    return model;
  }
  if (!model.spec.packed_as.empty()) {
    throw Unsupported(printable(argument) + ": \"quantization_config\"",
                      "\"" + printable(model.spec.packed_as.substr(0, 60)) +
                          "\": a config does not say which matrices are packed how",
                      "give --weights (awq, gptq, int4, nvfp4 ..), or the folder with the "
                      "*.safetensors");
  }
  foretell_gguf(model);
  return model;
}

}  // namespace kvfathom::cli
