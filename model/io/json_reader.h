// Reads JSON of strangers field by field; internal to model/io (it shows nlohmann's type).
//
// Every refusal is an InputError that says file: "field": what stands there; what is allowed.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "model/error.h"
#include "model/provenance.h"

namespace kvfathom {

/// Parses `text`. Nesting deeper than 64 is refused before anything is built. The tokens
/// Infinity and NaN, which Python's writer emits though JSON has none, are read as null.
[[nodiscard]] nlohmann::json parse_json(std::string_view text, const std::string& file);

/// The values a count may take, both ends included.
struct Range {
  std::int64_t min = 1;
  std::int64_t max = std::int64_t{1} << 24;
};

/// One JSON object, or one laid over another: a field that the inner object lacks is looked up in
/// the outer one. A field that is null counts as absent. Refers to the objects; outlives neither.
class Reader {
 public:
  /// `path` is what stands before a field's name in messages ("text_config."), or empty.
  Reader(const nlohmann::json& object, std::string file, std::string path = {});

  /// This object with `inner_key` (an object in it) laid over it.
  [[nodiscard]] Reader over(const char* inner_key) const;

  [[nodiscard]] const std::string& file() const { return file_; }
  [[nodiscard]] bool has(const char* key) const { return find(key).first != nullptr; }
  [[nodiscard]] bool is_list(const char* key) const;
  [[nodiscard]] bool is_object(const char* key) const;
  [[nodiscard]] bool is_text(const char* key) const;

  /// An integer in range; the first form must be there.
  [[nodiscard]] std::int64_t count(const char* key, Range allowed = {}) const;
  [[nodiscard]] std::int64_t count_or(const char* key,
                                      std::int64_t fallback,
                                      Range allowed = {}) const;
  [[nodiscard]] std::optional<std::int64_t> maybe_count(const char* key, Range allowed = {}) const;
  /// The first of `keys` that is there; the message for none names the first.
  [[nodiscard]] std::int64_t count_of(std::initializer_list<const char*> keys,
                                      Range allowed = {}) const;

  [[nodiscard]] bool flag_or(const char* key, bool fallback) const;
  [[nodiscard]] std::string text(const char* key) const;
  [[nodiscard]] std::string text_or(const char* key, std::string fallback) const;
  /// A finite number.
  [[nodiscard]] double number(const char* key) const;
  [[nodiscard]] double number_or(const char* key, double fallback) const;
  /// A number above 0, or of at least 0.
  [[nodiscard]] double positive(const char* key) const;
  [[nodiscard]] double not_negative(const char* key) const;
  [[nodiscard]] Provenance provenance(const char* key) const;

  /// Lists: of integers in range, of finite numbers, of strings, of objects. Must be there.
  [[nodiscard]] std::vector<std::int64_t> counts(const char* key, Range allowed = {}) const;
  [[nodiscard]] std::vector<double> numbers(const char* key) const;
  [[nodiscard]] std::vector<std::string> texts(const char* key) const;
  [[nodiscard]] std::vector<Reader> objects(const char* key) const;
  [[nodiscard]] Reader object(const char* key) const;
  /// Names of the fields, for objects whose names are data.
  [[nodiscard]] std::vector<std::string> keys() const;

  /// The error for a field, for callers that check more than a range.
  [[nodiscard]] InputError error(const char* key,
                                 const std::string& found,
                                 const std::string& allowed) const;
  /// The value as it stands in the file, cut if long; "missing" if it is not there.
  [[nodiscard]] std::string shown(const char* key) const;
  /// Refuses every field that is not in `known` (for documents of our own).
  void refuse_unknown(std::span<const std::string_view> known) const;

 private:
  struct Scope {
    const nlohmann::json* object;
    std::string path;
  };
  /// The value and the scope it was found in, or two nulls.
  [[nodiscard]] std::pair<const nlohmann::json*, const Scope*> find(const char* key) const;
  [[nodiscard]] const nlohmann::json& require(const char* key, const std::string& allowed) const;
  [[nodiscard]] std::string where(const char* key) const;
  [[nodiscard]] static std::int64_t to_count(const nlohmann::json& value,
                                             const std::string& where,
                                             Range allowed);

  std::string file_;
  std::vector<Scope> scopes_;  ///< innermost first
};

}  // namespace kvfathom
