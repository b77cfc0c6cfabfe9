#include "model/weights/recipe.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <functional>
#include <numeric>
#include <optional>
#include <utility>

#include "model/error.h"
#include "model/rounding.h"
#include "model/weights/serving_formats.h"

namespace kvfathom {
namespace {

struct ServingFormat {
  std::string_view name;
  WeightFormat format;
  bool grouped;  ///< takes a group size
};

constexpr std::int64_t kDefaultGroupSize = 128;  // AutoAWQ's and GPTQModel's default

constexpr auto kServingFormats = std::to_array<ServingFormat>({
    {"fp8", WeightFormat::fp8_blocks, false},
    {"fp8-dynamic", WeightFormat::fp8_channels, false},
    {"int8", WeightFormat::int8_channels, false},
    {"int4", WeightFormat::int4, true},
    {"gptq", WeightFormat::gptq, true},
    {"awq", WeightFormat::awq, true},
    {"mxfp4", WeightFormat::mxfp4, false},
    {"nvfp4", WeightFormat::nvfp4, false},
});

[[noreturn]] void refuse(std::string_view name, const std::string& why) {
  std::string allowed = "use one of ";
  for (const std::string_view each : recipe_names()) {
    allowed += std::string(each) + ", ";
  }
  allowed += "a GGUF type with +imatrix, or int4, gptq, awq with -g32, -g64, -g128";
  throw InputError("--weights", '"' + std::string(name) + "\" " + why, allowed);
}

/// Cuts `suffix` off `text`; false if it does not end so.
bool cut_suffix(std::string& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) {
    return false;
  }
  text.erase(text.size() - suffix.size());
  return true;
}

/// Cuts "-g64" off `text` and returns 64; nothing if there is no such suffix.
std::optional<std::int64_t> cut_group_size(std::string& text) {
  const std::size_t at = text.rfind("-g");
  if (at == std::string::npos) {
    return std::nullopt;
  }
  std::int64_t size = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + at + 2, end, size);
  if (parsed.ec != std::errc{} || parsed.ptr != end) {
    return std::nullopt;
  }
  text.erase(at);
  return size;
}

std::optional<WeightRecipe> gguf_recipe(std::string text) {
  const bool imatrix = cut_suffix(text, "+imatrix");
  const std::optional<FileType> type = file_type_named(text);
  if (!type) {
    return std::nullopt;
  }
  const FileTypeInfo& row = file_types()[static_cast<std::size_t>(*type)];
  WeightRecipe recipe;
  recipe.name = std::string(row.name) + (imatrix ? "+imatrix" : "");
  recipe.file_type = *type;
  recipe.imatrix = imatrix || row.needs_imatrix;
  return recipe;
}

std::optional<WeightRecipe> serving_recipe(std::string text) {
  const std::optional<std::int64_t> group = cut_group_size(text);
  const auto* const row = std::ranges::find(kServingFormats, text, &ServingFormat::name);
  if (row == kServingFormats.end() || (group && !row->grouped)) {
    return std::nullopt;
  }
  WeightRecipe recipe;
  recipe.format = row->format;
  recipe.provenance = Provenance::modelled;
  recipe.name = text;
  if (row->grouped) {
    recipe.group_size = group.value_or(kDefaultGroupSize);
    recipe.name += "-g" + std::to_string(recipe.group_size);
  }
  return recipe;
}

}  // namespace

std::vector<std::string_view> recipe_names() {
  std::vector<std::string_view> names;
  for (const FileTypeInfo& row : file_types()) {
    names.push_back(row.name);
  }
  for (const ServingFormat& row : kServingFormats) {
    names.push_back(row.name);
  }
  return names;
}

WeightRecipe parse_recipe(std::string_view name) {
  std::string lower(name);
  std::ranges::transform(
      lower, lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  std::optional<WeightRecipe> recipe = gguf_recipe(lower);
  if (!recipe) {
    recipe = serving_recipe(lower);
  }
  if (!recipe) {
    const bool dynamic = lower.starts_with("ud-") || lower.find("_k_xl") != std::string::npos;
    refuse(name,
           dynamic ? "is a per-model mix of its publisher, not a rule: pass the GGUF file itself"
                   : "is no weight format");
  }
  const bool grouped = std::ranges::any_of(kServingFormats, [&](const ServingFormat& row) {
    return row.grouped && row.format == recipe->format;
  });
  const std::int64_t size = recipe->group_size;
  if (grouped && (size < 8 || size > 1024 || size % 8 != 0)) {
    refuse(name, "has a group size that is no multiple of 8 between 8 and 1024");
  }
  return *recipe;
}

std::vector<Tensor> quantised(const ModelSpec& model,
                              std::vector<Tensor> unquantised,
                              const WeightRecipe& recipe) {
  return recipe.format == WeightFormat::llama_quantize
             ? llama_quantised(model, std::move(unquantised), recipe.file_type, recipe.imatrix)
             : packed_for_serving(unquantised, recipe);
}

std::int64_t weight_bytes(std::span<const Tensor> tensors) {
  return std::transform_reduce(
      tensors.begin(), tensors.end(), std::int64_t{0}, std::plus<>(), data_bytes);
}

std::int64_t gguf_data_bytes(std::span<const Tensor> tensors, std::int64_t alignment) {
  std::int64_t sum = 0;
  for (const Tensor& t : tensors) {
    sum += round_up(data_bytes(t), alignment);
  }
  return sum;
}

std::int64_t gguf_tensor_info_bytes(std::span<const Tensor> tensors) {
  constexpr std::int64_t kFixed = 4 + 4 + 8 + 8;      // magic, version, two counts
  constexpr std::int64_t kPerTensor = 8 + 4 + 4 + 8;  // name length, n_dims, type, offset
  std::int64_t sum = kFixed;
  for (const Tensor& t : tensors) {
    std::int64_t dims = 1;
    for (std::size_t axis = 1; axis < t.shape.size(); ++axis) {
      dims = t.shape.at(axis) > 1 ? static_cast<std::int64_t>(axis) + 1 : dims;
    }
    sum += kPerTensor + static_cast<std::int64_t>(t.name.size()) + 8 * dims;
  }
  return sum;
}

}  // namespace kvfathom
