// Puts GGUF files together for tests, sound ones and damaged ones.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "model/dtype.h"
#include "model/io/gguf.h"

namespace kvfathom::testing {

template <class T>
std::string raw(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

/// A string as GGUF stores it: eight bytes of length, then the text.
inline std::string gguf_string(std::string_view text) {
  return raw<std::uint64_t>(text.size()).append(text);
}

class GgufWriter {
 public:
  std::uint32_t version = 3;
  std::int64_t alignment = 32;
  std::int64_t extra_entries = 0;  ///< claimed beyond those added
  std::int64_t extra_tensors = 0;  ///< claimed beyond those added

  /// A key with its value as bytes behind the type.
  GgufWriter& entry(std::string_view key, GgufType type, std::string_view value) {
    entries_ += gguf_string(key) + raw(static_cast<std::uint32_t>(type));
    entries_ += value;
    ++n_entries_;
    return *this;
  }
  GgufWriter& u32(std::string_view key, std::uint32_t value) {
    return entry(key, GgufType::u32, raw(value));
  }
  GgufWriter& f32(std::string_view key, float value) {
    return entry(key, GgufType::f32, raw(value));
  }
  GgufWriter& boolean(std::string_view key, bool value) {
    return entry(key, GgufType::boolean, raw(static_cast<std::uint8_t>(value)));
  }
  GgufWriter& text(std::string_view key, std::string_view value) {
    return entry(key, GgufType::string, gguf_string(value));
  }
  /// An array head: element type and length; the elements as bytes.
  GgufWriter& array(std::string_view key, GgufType type, std::uint64_t n, std::string_view data) {
    return entry(
        key, GgufType::array, raw(static_cast<std::uint32_t>(type)) + raw(n) + std::string(data));
  }
  GgufWriter& i32s(std::string_view key, const std::vector<std::int32_t>& values) {
    std::string data;
    for (const std::int32_t v : values) {
      data += raw(v);
    }
    return array(key, GgufType::i32, values.size(), data);
  }
  GgufWriter& booleans(std::string_view key, const std::vector<int>& values) {
    std::string data;
    for (const int v : values) {
      data += static_cast<char>(v);
    }
    return array(key, GgufType::boolean, values.size(), data);
  }
  GgufWriter& texts(std::string_view key, const std::vector<std::string>& values) {
    std::string data;
    for (const std::string& v : values) {
      data += gguf_string(v);
    }
    return array(key, GgufType::string, values.size(), data);
  }

  /// A tensor right behind the one before it.
  GgufWriter& tensor(std::string_view name,
                     const std::vector<std::int64_t>& shape,
                     DType dtype = DType::f32) {
    std::int64_t bytes = row_bytes(dtype, shape.empty() ? 1 : shape[0]);
    for (std::size_t axis = 1; axis < shape.size(); ++axis) {
      bytes *= shape[axis];
    }
    raw_tensor(name, shape, *info(dtype).ggml_id, static_cast<std::uint64_t>(data_bytes_));
    end_bytes_ = data_bytes_ + bytes;
    data_bytes_ = padded(end_bytes_);
    return *this;
  }
  /// A tensor info as given, sound or not; it adds no data.
  GgufWriter& raw_tensor(std::string_view name,
                         const std::vector<std::int64_t>& shape,
                         std::uint32_t ggml_type,
                         std::uint64_t offset) {
    tensors_ += gguf_string(name) + raw(static_cast<std::uint32_t>(shape.size()));
    for (const std::int64_t n : shape) {
      tensors_ += raw(n);
    }
    tensors_ += raw(ggml_type) + raw(offset);
    ++n_tensors_;
    return *this;
  }

  /// The file up to its tensor data.
  [[nodiscard]] std::string header() const {
    std::string file = "GGUF" + raw(version) + raw(n_tensors_ + extra_tensors) +
                       raw(n_entries_ + extra_entries) + entries_ + tensors_;
    file.resize(static_cast<std::size_t>(padded(static_cast<std::int64_t>(file.size()))), '\0');
    return file;
  }
  /// The whole file, its data zero.
  [[nodiscard]] std::string file() const {
    std::string file = header();
    file.resize(file.size() + static_cast<std::size_t>(end_bytes_), '\0');
    return file;
  }

 private:
  [[nodiscard]] std::int64_t padded(std::int64_t n) const {
    return (n + alignment - 1) / alignment * alignment;
  }

  std::string entries_;
  std::string tensors_;
  std::int64_t n_entries_ = 0;
  std::int64_t n_tensors_ = 0;
  std::int64_t data_bytes_ = 0;
  std::int64_t end_bytes_ = 0;
};

}  // namespace kvfathom::testing
