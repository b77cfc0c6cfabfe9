// Tensors of a GGUF model by name. Internal to the GGUF reader.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "model/io/gguf.h"

namespace kvfathom {

class GgufTensors {
 public:
  explicit GgufTensors(std::span<const GgufHeader* const> shards);

  [[nodiscard]] const GgufTensor* find(std::string_view name) const;
  /// "blk.<layer>.<suffix>".
  [[nodiscard]] const GgufTensor* find(std::int64_t layer, std::string_view suffix) const;
  [[nodiscard]] bool has(std::int64_t layer, std::string_view suffix) const {
    return find(layer, suffix) != nullptr;
  }
  /// A missing tensor is an InputError.
  [[nodiscard]] const GgufTensor& required(std::string_view name) const;
  [[nodiscard]] const GgufTensor& required(std::int64_t layer, std::string_view suffix) const;

  /// Throws InputError unless the tensor is {n, m}; `by` names the keys that say so.
  void require_shape(const GgufTensor& tensor,
                     std::int64_t n,
                     std::int64_t m,
                     std::string_view by) const;
  /// Throws InputError about `tensor`.
  [[noreturn]] void refuse(const GgufTensor& tensor,
                           const std::string& found,
                           const std::string& allowed) const;

 private:
  std::string path_;
  std::unordered_map<std::string_view, const GgufTensor*> by_name_;
};

[[nodiscard]] std::int64_t n_elements(const GgufTensor& tensor);

/// "{4096, 1024}": the axes up to the last that is not 1.
[[nodiscard]] std::string shape_text(const GgufTensor& tensor);

}  // namespace kvfathom
