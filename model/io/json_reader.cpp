#include "model/io/json_reader.h"

#include <algorithm>
#include <cmath>

namespace kvfathom {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 64;

/// One value for a message: as in the file, but never long.
std::string brief(const json& value) {
  if (value.is_object()) {
    return "an object";
  }
  if (value.is_array()) {
    return "a list";
  }
  constexpr std::size_t kShown = 40;
  const std::string text = value.dump();
  return text.size() <= kShown ? text : text.substr(0, kShown) + "...";
}

std::string describe(Range allowed) {
  return "an integer from " + std::to_string(allowed.min) + " to " + std::to_string(allowed.max);
}

/// Walks the text once, outside strings: bounds the nesting and takes out the tokens that JSON
/// does not have. Returns nothing if there was nothing to take out.
std::optional<std::string> without_infinities(std::string_view text, const std::string& file) {
  std::string cleaned;
  std::size_t copied = 0;
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) {
        throw InputError(
            file,
            "nesting deeper than " + std::to_string(kMaxDepth) + " at byte " + std::to_string(i),
            "at most " + std::to_string(kMaxDepth) + " levels");
      }
    } else if (c == '}' || c == ']') {
      --depth;
    } else if (c == 'I' || c == 'N') {
      for (const std::string_view token : {std::string_view("Infinity"), std::string_view("NaN")}) {
        if (text.substr(i, token.size()) == token) {
          const std::size_t start = i > 0 && text[i - 1] == '-' ? i - 1 : i;
          cleaned.append(text.substr(copied, start - copied)).append("null");
          copied = i + token.size();
          i = copied - 1;
          break;
        }
      }
    }
  }
  if (copied == 0) {
    return std::nullopt;
  }
  cleaned.append(text.substr(copied));
  return cleaned;
}

}  // namespace

json parse_json(std::string_view text, const std::string& file) {
  const std::optional<std::string> cleaned = without_infinities(text, file);
  try {
    return json::parse(cleaned ? std::string_view(*cleaned) : text);
  } catch (const json::parse_error& e) {
    throw InputError(
        file, "not JSON: bad or missing text at byte " + std::to_string(e.byte), "a JSON object");
  } catch (const json::out_of_range&) {
    throw InputError(file, "a number too large to represent", "numbers below 1e308");
  }
}

Reader::Reader(const json& object, std::string file, std::string path) : file_(std::move(file)) {
  if (!object.is_object()) {
    const std::string field =
        path.empty() ? "" : ": \"" + path.substr(0, path.find_last_not_of('.') + 1) + "\"";
    throw InputError(file_ + field, brief(object) + " is not an object", "a JSON object");
  }
  scopes_.push_back({&object, std::move(path)});
}

Reader Reader::over(const char* inner_key) const {
  Reader both = object(inner_key);
  both.scopes_.insert(both.scopes_.end(), scopes_.begin(), scopes_.end());
  return both;
}

std::pair<const json*, const Reader::Scope*> Reader::find(const char* key) const {
  for (const Scope& scope : scopes_) {
    const auto at = scope.object->find(key);
    if (at != scope.object->end()) {
      return at->is_null() ? std::pair<const json*, const Scope*>{nullptr, nullptr}
                           : std::pair<const json*, const Scope*>{&*at, &scope};
    }
  }
  return {nullptr, nullptr};
}

std::string Reader::where(const char* key) const {
  const Scope* const scope = find(key).second;
  return file_ + ": \"" + (scope == nullptr ? scopes_.front().path : scope->path) + key + "\"";
}

InputError Reader::error(const char* key,
                         const std::string& found,
                         const std::string& allowed) const {
  return {where(key), found, allowed};
}

std::string Reader::shown(const char* key) const {
  const json* const value = find(key).first;
  return value == nullptr ? "missing" : brief(*value);
}

const json& Reader::require(const char* key, const std::string& allowed) const {
  const json* const value = find(key).first;
  if (value == nullptr) {
    throw error(key, "missing", allowed);
  }
  return *value;
}

std::int64_t Reader::to_count(const json& value, const std::string& where, Range allowed) {
  if (!value.is_number_integer()) {
    throw InputError(where, brief(value) + " is not an integer", describe(allowed));
  }
  const bool too_large = value.is_number_unsigned() &&
                         value.get<std::uint64_t>() > static_cast<std::uint64_t>(allowed.max);
  if (too_large || value.get<std::int64_t>() < allowed.min ||
      value.get<std::int64_t>() > allowed.max) {
    throw InputError(where, brief(value) + " is out of range", describe(allowed));
  }
  return value.get<std::int64_t>();
}

bool Reader::is_list(const char* key) const {
  const json* const value = find(key).first;
  return value != nullptr && value->is_array();
}

bool Reader::is_object(const char* key) const {
  const json* const value = find(key).first;
  return value != nullptr && value->is_object();
}

bool Reader::is_text(const char* key) const {
  const json* const value = find(key).first;
  return value != nullptr && value->is_string();
}

std::int64_t Reader::count(const char* key, Range allowed) const {
  return to_count(require(key, describe(allowed)), where(key), allowed);
}

std::optional<std::int64_t> Reader::maybe_count(const char* key, Range allowed) const {
  return has(key) ? std::optional(count(key, allowed)) : std::nullopt;
}

std::int64_t Reader::count_or(const char* key, std::int64_t fallback, Range allowed) const {
  return maybe_count(key, allowed).value_or(fallback);
}

std::int64_t Reader::count_of(std::initializer_list<const char*> keys, Range allowed) const {
  for (const char* key : keys) {
    if (has(key)) {
      return count(key, allowed);
    }
  }
  return count(*keys.begin(), allowed);
}

bool Reader::flag_or(const char* key, bool fallback) const {
  const json* const value = find(key).first;
  if (value == nullptr) {
    return fallback;
  }
  if (!value->is_boolean()) {
    throw error(key, brief(*value) + " is not a truth value", "true or false");
  }
  return value->get<bool>();
}

std::string Reader::text(const char* key) const {
  const json& value = require(key, "a string");
  if (!value.is_string()) {
    throw error(key, brief(value) + " is not a string", "a string");
  }
  return value.get<std::string>();
}

std::string Reader::text_or(const char* key, std::string fallback) const {
  return has(key) ? text(key) : std::move(fallback);
}

double Reader::number(const char* key) const {
  const json& value = require(key, "a number");
  if (!value.is_number()) {
    throw error(key, brief(value) + " is not a number", "a number");
  }
  return value.get<double>();
}

double Reader::number_or(const char* key, double fallback) const {
  return has(key) ? number(key) : fallback;
}

double Reader::positive(const char* key) const {
  const double value = number(key);
  if (value <= 0.0) {
    throw error(key, shown(key), "a number above 0");
  }
  return value;
}

double Reader::not_negative(const char* key) const {
  const double value = number(key);
  if (value < 0.0) {
    throw error(key, shown(key), "a number of at least 0");
  }
  return value;
}

Provenance Reader::provenance(const char* key) const {
  const auto* const found = std::ranges::find(kProvenanceNames, std::string_view(text(key)));
  if (found == kProvenanceNames.end()) {
    std::string allowed;
    for (const std::string_view known : kProvenanceNames) {
      allowed.append(allowed.empty() ? "one of " : ", ").append(known);
    }
    throw error(key, shown(key), allowed);
  }
  return static_cast<Provenance>(found - kProvenanceNames.begin());
}

std::vector<std::int64_t> Reader::counts(const char* key, Range allowed) const {
  const json& list = require(key, "a list of integers");
  if (!list.is_array()) {
    throw error(key, brief(list) + " is not a list", "a list of integers");
  }
  std::vector<std::int64_t> values;
  for (const json& value : list) {
    values.push_back(to_count(
        value, where((key + ("[" + std::to_string(values.size()) + "]")).c_str()), allowed));
  }
  return values;
}

std::vector<double> Reader::numbers(const char* key) const {
  const json& list = require(key, "a list of numbers");
  if (!list.is_array()) {
    throw error(key, brief(list) + " is not a list", "a list of numbers");
  }
  std::vector<double> values;
  for (const json& value : list) {
    if (!value.is_number() || !std::isfinite(value.get<double>())) {
      throw error(key, brief(value) + " is not a number", "a list of numbers");
    }
    values.push_back(value.get<double>());
  }
  return values;
}

std::vector<std::string> Reader::texts(const char* key) const {
  const json& list = require(key, "a list of strings");
  if (!list.is_array() ||
      !std::all_of(list.begin(), list.end(), [](const json& v) { return v.is_string(); })) {
    throw error(key, brief(list) + " is not a list of strings", "a list of strings");
  }
  return list.get<std::vector<std::string>>();
}

std::vector<Reader> Reader::objects(const char* key) const {
  const json& list = require(key, "a list of objects");
  if (!list.is_array()) {
    throw error(key, brief(list) + " is not a list", "a list of objects");
  }
  const std::string path = find(key).second->path + key;
  std::vector<Reader> readers;
  for (const json& value : list) {
    readers.emplace_back(value, file_, path + "[" + std::to_string(readers.size()) + "].");
  }
  return readers;
}

Reader Reader::object(const char* key) const {
  const json& value = require(key, "an object");
  return {value, file_, find(key).second->path + key + "."};
}

std::vector<std::string> Reader::keys() const {
  std::vector<std::string> names;
  for (const auto& [key, value] : scopes_.front().object->items()) {
    names.push_back(key);
  }
  return names;
}

void Reader::refuse_unknown(std::span<const std::string_view> known) const {
  for (const auto& [key, value] : scopes_.front().object->items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      std::string names;
      for (const std::string_view name : known) {
        names.append(names.empty() ? "" : ", ").append(name);
      }
      throw error(key.c_str(), "unknown field", "one of " + names);
    }
  }
}

}  // namespace kvfathom
