// Typed access to the keys of a GGUF header, with their ranges. Internal to the GGUF reader.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/io/gguf.h"

namespace kvfathom {

/// What an integer may be.
struct GgufRange {
  std::int64_t min = 0;
  std::int64_t max = 0;
};

/// Keys below an architecture's prefix ("llama." + "block_count"). Any integer type will do for an
/// integer, f32 and f64 for a number; a value of another type or out of range is an InputError.
class GgufKeys {
 public:
  GgufKeys(const GgufHeader& header, std::string_view prefix) : header_(header), prefix_(prefix) {}

  [[nodiscard]] const GgufHeader& header() const { return header_; }
  [[nodiscard]] bool has(std::string_view key) const;
  /// "file: key "llama.block_count"": the front of messages about the key.
  [[nodiscard]] std::string where(std::string_view key) const;

  [[nodiscard]] std::optional<std::int64_t> integer(std::string_view key, GgufRange range) const;
  /// A missing key is an InputError.
  [[nodiscard]] std::int64_t required(std::string_view key, GgufRange range) const;
  [[nodiscard]] std::optional<double> number(std::string_view key) const;
  [[nodiscard]] std::optional<bool> boolean(std::string_view key) const;

  /// One integer for each of `n` layers: an array of `n` to `n_stored` elements (a file may count
  /// the layers stored behind the decoder's, or not), or one number for all. Booleans count as 0
  /// and 1.
  [[nodiscard]] std::optional<std::vector<std::int64_t>> per_layer(std::string_view key,
                                                                   GgufRange range,
                                                                   std::int64_t n,
                                                                   std::int64_t n_stored) const;
  [[nodiscard]] bool is_array(std::string_view key) const;

  // By whole key, without the prefix.
  [[nodiscard]] std::optional<std::int64_t> integer_at(std::string_view whole_key,
                                                       GgufRange range) const;
  [[nodiscard]] std::optional<std::string_view> text_at(std::string_view whole_key) const;
  /// Elements of an array; nothing if there is no such key.
  [[nodiscard]] std::optional<std::int64_t> length_at(std::string_view whole_key) const;

 private:
  [[nodiscard]] const GgufValue* find(std::string_view key) const;

  const GgufHeader& header_;
  std::string prefix_;  ///< with its dot
};

}  // namespace kvfathom
