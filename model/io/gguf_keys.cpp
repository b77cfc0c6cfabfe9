#include "model/io/gguf_keys.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "model/error.h"

namespace kvfathom {
namespace {

template <class T>
T load(std::string_view data, std::int64_t index) {
  T value;
  std::memcpy(&value, data.data() + static_cast<std::size_t>(index) * sizeof(T), sizeof value);
  return value;
}

/// Element `index` as an integer; nothing if it is none, or is beyond 2^63.
std::optional<std::int64_t> integer_element(const GgufValue& value, std::int64_t index) {
  switch (value.type) {
    case GgufType::u8:
    case GgufType::boolean:
      return load<std::uint8_t>(value.data, index);
    case GgufType::i8:
      return load<std::int8_t>(value.data, index);
    case GgufType::u16:
      return load<std::uint16_t>(value.data, index);
    case GgufType::i16:
      return load<std::int16_t>(value.data, index);
    case GgufType::u32:
      return load<std::uint32_t>(value.data, index);
    case GgufType::i32:
      return load<std::int32_t>(value.data, index);
    case GgufType::i64:
      return load<std::int64_t>(value.data, index);
    case GgufType::u64: {
      const auto number = load<std::uint64_t>(value.data, index);
      return number > std::numeric_limits<std::int64_t>::max()
                 ? std::nullopt
                 : std::optional(static_cast<std::int64_t>(number));
    }
    default:
      return std::nullopt;
  }
}

std::string to_text(GgufRange range) {
  return std::to_string(range.min) + " to " + std::to_string(range.max);
}

/// `where` makes the front of a message and is called only for one.
template <class Where>
std::int64_t checked(const GgufValue& value,
                     std::int64_t index,
                     GgufRange range,
                     const Where& where) {
  const auto number = integer_element(value, index);
  if (!number) {
    throw InputError(where(), "not an integer below 2^63", "an integer, " + to_text(range));
  }
  if (*number < range.min || *number > range.max) {
    const std::string place = value.is_array ? " in layer " + std::to_string(index) : "";
    throw InputError(where(), std::to_string(*number) + place, to_text(range));
  }
  return *number;
}

template <class Where>
std::optional<std::int64_t> scalar(const GgufValue* value, GgufRange range, const Where& where) {
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->is_array) {
    throw InputError(where(), "an array", "one integer, " + to_text(range));
  }
  return checked(*value, 0, range, where);
}

}  // namespace

const GgufValue* GgufKeys::find(std::string_view key) const {
  for (const GgufEntry& entry : header_.entries) {
    if (entry.key.size() == prefix_.size() + key.size() && entry.key.ends_with(key) &&
        entry.key.starts_with(prefix_)) {
      return &entry.value;
    }
  }
  return nullptr;
}

bool GgufKeys::has(std::string_view key) const {
  return find(key) != nullptr;
}

bool GgufKeys::is_array(std::string_view key) const {
  const GgufValue* value = find(key);
  return value != nullptr && value->is_array;
}

std::string GgufKeys::where(std::string_view key) const {
  return header_.path + ": key " + in_quotes(prefix_ + std::string(key));
}

std::optional<std::int64_t> GgufKeys::integer(std::string_view key, GgufRange range) const {
  return scalar(find(key), range, [&] { return where(key); });
}

std::int64_t GgufKeys::required(std::string_view key, GgufRange range) const {
  const auto value = integer(key, range);
  if (!value) {
    throw InputError(where(key), "is missing", "an integer, " + to_text(range));
  }
  return *value;
}

std::optional<double> GgufKeys::number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  std::optional<double> number;
  if (!value->is_array && value->type == GgufType::f32) {
    number = load<float>(value->data, 0);
  } else if (!value->is_array && value->type == GgufType::f64) {
    number = load<double>(value->data, 0);
  }
  if (!number || !std::isfinite(*number)) {
    throw InputError(where(key), "not a finite f32 or f64", "a finite number");
  }
  return number;
}

std::optional<bool> GgufKeys::boolean(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->is_array || value->type != GgufType::boolean) {
    throw InputError(where(key), "not a boolean", "true or false");
  }
  return checked(*value, 0, {.min = 0, .max = 1}, [&] { return where(key); }) != 0;
}

std::optional<std::vector<std::int64_t>> GgufKeys::per_layer(std::string_view key,
                                                             GgufRange range,
                                                             std::int64_t n,
                                                             std::int64_t n_stored) const {
  const GgufValue* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  const auto here = [&] { return where(key); };
  if (!value->is_array) {
    return std::vector(static_cast<std::size_t>(n), checked(*value, 0, range, here));
  }
  if (value->count < n || value->count > n_stored) {
    throw InputError(where(key),
                     "an array of " + std::to_string(value->count) + " elements",
                     std::to_string(n_stored) + ", one per layer");
  }
  std::vector<std::int64_t> layers;
  layers.reserve(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    layers.push_back(checked(*value, i, range, here));
  }
  return layers;
}

std::optional<std::int64_t> GgufKeys::integer_at(std::string_view whole_key,
                                                 GgufRange range) const {
  return scalar(header_.find(whole_key), range, [&] {
    return header_.path + ": key " + in_quotes(whole_key);
  });
}

std::optional<std::string_view> GgufKeys::text_at(std::string_view whole_key) const {
  const GgufValue* value = header_.find(whole_key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->is_array || value->type != GgufType::string) {
    throw InputError(header_.path + ": key " + in_quotes(whole_key), "not a string", "a string");
  }
  return value->data;
}

std::optional<std::int64_t> GgufKeys::length_at(std::string_view whole_key) const {
  const GgufValue* value = header_.find(whole_key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_array) {
    throw InputError(header_.path + ": key " + in_quotes(whole_key), "not an array", "an array");
  }
  return value->count;
}

}  // namespace kvfathom
