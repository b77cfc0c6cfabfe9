#include "model/io/gguf_tensors.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "model/error.h"

namespace kvfathom {
namespace {

std::string block_name(std::int64_t layer, std::string_view suffix) {
  return ("blk." + std::to_string(layer) + ".").append(suffix);
}

}  // namespace

GgufTensors::GgufTensors(std::span<const GgufHeader* const> shards) : path_(shards.front()->path) {
  std::size_t n = 0;
  for (const GgufHeader* shard : shards) {
    n += shard->tensors.size();
  }
  by_name_.reserve(n);
  for (const GgufHeader* shard : shards) {
    for (const GgufTensor& tensor : shard->tensors) {
      by_name_.emplace(tensor.name, &tensor);
    }
  }
}

const GgufTensor* GgufTensors::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

// Asked some tens of times per layer, so the name is put together without allocating.
const GgufTensor* GgufTensors::find(std::int64_t layer, std::string_view suffix) const {
  std::array<char, 96> name{'b', 'l', 'k', '.'};
  char* end = std::to_chars(name.data() + 4, name.data() + 24, layer).ptr;
  *end++ = '.';
  end = std::copy_n(suffix.data(), std::min<std::size_t>(suffix.size(), 64), end);
  return find(std::string_view(name.data(), static_cast<std::size_t>(end - name.data())));
}

const GgufTensor& GgufTensors::required(std::string_view name) const {
  const GgufTensor* tensor = find(name);
  if (tensor == nullptr) {
    throw InputError(path_ + ": tensor " + in_quotes(name), "is missing", "a whole model");
  }
  return *tensor;
}

const GgufTensor& GgufTensors::required(std::int64_t layer, std::string_view suffix) const {
  return required(block_name(layer, suffix));
}

void GgufTensors::require_shape(const GgufTensor& tensor,
                                std::int64_t n,
                                std::int64_t m,
                                std::string_view by) const {
  if (tensor.shape != std::array<std::int64_t, 4>{n, m, 1, 1}) {
    refuse(tensor,
           "shape " + shape_text(tensor),
           "{" + std::to_string(n) + ", " + std::to_string(m) + "} by " + std::string(by));
  }
}

void GgufTensors::refuse(const GgufTensor& tensor,
                         const std::string& found,
                         const std::string& allowed) const {
  throw InputError(path_ + ": tensor " + in_quotes(tensor.name), found, allowed);
}

std::int64_t n_elements(const GgufTensor& tensor) {
  return tensor.shape[0] * tensor.shape[1] * tensor.shape[2] * tensor.shape[3];
}

std::string shape_text(const GgufTensor& tensor) {
  std::size_t n = tensor.shape.size();
  while (n > 1 && tensor.shape.at(n - 1) == 1) {
    --n;
  }
  std::string text = "{";
  for (std::size_t axis = 0; axis < n; ++axis) {
    text += (axis == 0 ? "" : ", ") + std::to_string(tensor.shape.at(axis));
  }
  return text + "}";
}

}  // namespace kvfathom
