#include "model/io/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "model/error.h"
#include "model/io/file.h"

namespace kvfathom {
namespace {

namespace fs = std::filesystem;
using std::int64_t;

// ---- Events of a JSON text -------------------------------------------------------------------

/// Follows a JSON text event by event, so that a header of many MiB needs no tree. Keeps the path
/// of keys down to the depth that the formats here have; refuses anything deeper.
class Events : public nlohmann::json_sax<nlohmann::json> {
 public:
  Events(std::string file, std::size_t max_depth) : file_(std::move(file)), max_depth_(max_depth) {}

  bool key(string_t& value) final {
    path_.back() = value;
    return true;
  }
  bool start_object(std::size_t /*size*/) final { return enter(); }
  bool start_array(std::size_t /*size*/) final { return enter(); }
  bool end_object() final { return leave(true); }
  bool end_array() final { return leave(false); }

  bool null() final { return other(); }
  bool boolean(bool /*value*/) final { return other(); }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) final { return other(); }
  bool binary(binary_t& /*value*/) final { return other(); }
  bool number_integer(number_integer_t /*value*/) final {
    throw fail("a negative number", "integers from 0");
  }
  bool number_unsigned(number_unsigned_t value) final {
    constexpr auto kMost = std::uint64_t{1} << 62;
    if (value > kMost) {
      throw fail(std::to_string(value) + " is out of range", "integers from 0 to 2^62");
    }
    on_number(static_cast<int64_t>(value));
    return true;
  }
  bool string(string_t& value) final {
    on_text(value);
    return true;
  }
  bool parse_error(std::size_t position,
                   const std::string& /*token*/,
                   const nlohmann::detail::exception& /*e*/) final {
    throw InputError(file_, "not JSON at byte " + std::to_string(position), "a JSON object");
  }

 protected:
  /// Keys from the outermost object down, with an empty one for an array.
  [[nodiscard]] const std::vector<std::string>& path() const { return path_; }
  [[nodiscard]] InputError fail(const std::string& found, const std::string& allowed) const {
    std::string where;
    for (const std::string& key : path_) {
      if (!key.empty()) {
        where.append(where.empty() ? "" : ".").append(key.substr(0, 80));
      }
    }
    return {file_ + ": \"" + where + "\"", found, allowed};
  }
  [[nodiscard]] const std::string& file() const { return file_; }

  virtual void on_number(int64_t /*value*/) {}
  virtual void on_text(const std::string& /*value*/) {}
  virtual void on_other() {}
  virtual void on_object_end() {}

 private:
  bool other() {
    on_other();
    return true;
  }
  bool enter() {
    if (path_.size() == max_depth_) {
      throw InputError(file_,
                       "nesting deeper than " + std::to_string(max_depth_),
                       "at most " + std::to_string(max_depth_) + " levels");
    }
    path_.emplace_back();
    return true;
  }
  bool leave(bool is_object) {
    path_.pop_back();
    if (is_object) {
      on_object_end();
    }
    return true;
  }

  std::string file_;
  std::size_t max_depth_;
  std::vector<std::string> path_;
};

void parse(std::string_view text, Events& events) {
  nlohmann::json::sax_parse(text.begin(), text.end(), &events);
}

// ---- Header of one file ----------------------------------------------------------------------

/// Element types by the format's names. Unsigned ones of a size that ggml only has signed, and
/// 8-bit scale exponents, take the name of the same size: only bytes are counted here.
std::optional<DType> dtype_of(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, DType>, 16> kTypes{
      {{"F64", DType::f64},
       {"F32", DType::f32},
       {"F16", DType::f16},
       {"BF16", DType::bf16},
       {"F8_E4M3", DType::f8_e4m3},
       {"F8_E5M2", DType::f8_e5m2},
       {"F8_E8M0", DType::u8},
       {"I64", DType::i64},
       {"U64", DType::i64},
       {"I32", DType::i32},
       {"U32", DType::i32},
       {"I16", DType::i16},
       {"U16", DType::i16},
       {"I8", DType::i8},
       {"U8", DType::u8},
       {"BOOL", DType::boolean}}};
  const auto* const at = std::find_if(
      kTypes.begin(), kTypes.end(), [&](const auto& one) { return one.first == name; });
  return at == kTypes.end() ? std::nullopt : std::optional(at->second);
}

/// {"name": {"dtype": "BF16", "shape": [out, in], "data_offsets": [begin, end]}, ..}
class HeaderEvents : public Events {
 public:
  HeaderEvents(const std::string& file, int64_t data_bytes)
      : Events(file, 3), data_bytes_(data_bytes) {}

  [[nodiscard]] std::map<std::string, Tensor> take() { return std::move(tensors_); }

 private:
  [[nodiscard]] bool is_field(const char* name) const {
    return path().size() >= 2 && path().front() != "__metadata__" && path()[1] == name;
  }

  void on_text(const std::string& value) override {
    if (is_field("dtype")) {
      dtype_ = dtype_of(value);
      if (!dtype_) {
        throw Unsupported(file() + ": \"" + path().front().substr(0, 80) + ".dtype\"",
                          "\"" + value.substr(0, 40) + "\" is not known",
                          "F64, F32, F16, BF16, F8_E4M3, F8_E5M2, F8_E8M0, I8 to I64, U8 to U64, "
                          "BOOL");
      }
    }
  }
  void on_number(int64_t value) override {
    if (is_field("shape")) {
      shape_.push_back(value);
      if (shape_.size() > 8) {
        throw fail("more than 8 axes", "at most 8");
      }
    } else if (is_field("data_offsets")) {
      offsets_.push_back(value);
    }
  }

  void on_object_end() override {
    if (path().size() != 1 || path().front() == "__metadata__") {
      return;
    }
    if (!dtype_ || offsets_.size() != 2) {
      throw fail("dtype or data_offsets missing", "dtype, shape, data_offsets of two numbers");
    }
    Tensor tensor;
    tensor.name = path().front();
    tensor.dtype = *dtype_;
    double n = 1.0;
    for (std::size_t axis = 0; axis < shape_.size(); ++axis) {
      const int64_t width = shape_[shape_.size() - 1 - axis];
      n *= static_cast<double>(std::max<int64_t>(width, 1));  // an empty axis hides no other
      if (!(n < 1e15)) {
        throw fail("a shape of more than 1e15 elements", "fewer");
      }
      tensor.shape.at(std::min<std::size_t>(axis, 3)) *= width;
    }
    const int64_t begin = offsets_[0];
    const int64_t end = offsets_[1];
    if (begin > end || end > data_bytes_) {
      throw fail("data from " + std::to_string(begin) + " to " + std::to_string(end) +
                     ", but the file has " + std::to_string(data_bytes_) + " bytes of it",
                 "a complete file");
    }
    if (end - begin != data_bytes(tensor)) {
      throw fail(std::to_string(end - begin) + " bytes of data",
                 std::to_string(data_bytes(tensor)) + " for its shape and type");
    }
    tensors_.emplace(tensor.name, std::move(tensor));
    dtype_.reset();
    shape_.clear();
    offsets_.clear();
  }

  int64_t data_bytes_;
  std::map<std::string, Tensor> tensors_;
  std::optional<DType> dtype_;
  std::vector<int64_t> shape_;
  std::vector<int64_t> offsets_;
};

/// A file: eight bytes of header length (little endian), the header, the data.
std::map<std::string, Tensor> read_header(const std::string& path) {
  const MappedFile file = MappedFile::open(path);
  constexpr int64_t kLengthBytes = 8;
  constexpr int64_t kMostHeaderBytes = 100'000'000;  // the format's own bound
  if (file.size_bytes() < kLengthBytes) {
    throw InputError(path, "too short for a safetensors file", "at least 8 bytes");
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    length |= static_cast<std::uint64_t>(static_cast<unsigned char>(file.bytes()[i])) << (8 * i);
  }
  const int64_t most = std::min(file.size_bytes() - kLengthBytes, kMostHeaderBytes);
  if (length > static_cast<std::uint64_t>(most)) {
    throw InputError(path,
                     "a header of " + std::to_string(length) + " bytes",
                     "at most " + std::to_string(most) + " in this file");
  }
  const auto header_bytes = static_cast<std::size_t>(length);
  HeaderEvents events(path, file.size_bytes() - kLengthBytes - static_cast<int64_t>(length));
  parse(file.bytes().substr(kLengthBytes, header_bytes), events);
  return events.take();
}

// ---- Index of a folder -----------------------------------------------------------------------

/// {"metadata": {..}, "weight_map": {"name": "file", ..}}
class IndexEvents : public Events {
 public:
  explicit IndexEvents(const std::string& file) : Events(file, 4) {}
  /// Tensor names by shard.
  [[nodiscard]] std::map<std::string, std::vector<std::string>> take() {
    return std::move(shards_);
  }

 private:
  void on_text(const std::string& value) override {
    if (path().size() != 2 || path().front() != "weight_map") {
      return;
    }
    if (value.empty() || value.front() == '.' ||
        value.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos) {
      throw fail("\"" + value.substr(0, 80) + "\" is no plain file name",
                 "a file beside the index");
    }
    shards_[value].push_back(path().back());
  }
  std::map<std::string, std::vector<std::string>> shards_;
};

void add(SafetensorsWeights& weights, Tensor tensor) {
  weights.bytes += data_bytes(tensor);
  weights.tensors.push_back(std::move(tensor));
}

SafetensorsWeights read_index(const fs::path& path) {
  const MappedFile file = MappedFile::open(path.string());
  IndexEvents events(path.string());
  parse(file.bytes(), events);
  SafetensorsWeights weights;
  for (const auto& [shard, names] : events.take()) {
    const std::string shard_path = (path.parent_path() / shard).string();
    if (!is_regular_file(shard_path)) {
      throw InputError(path.string() + ": \"weight_map\"",
                       "shard " + shard + " is missing",
                       "every shard beside the index");
    }
    std::map<std::string, Tensor> held = read_header(shard_path);
    for (const std::string& name : names) {
      const auto at = held.find(name);
      if (at == held.end()) {
        throw InputError(path.string() + ": \"weight_map." + name.substr(0, 80) + "\"",
                         shard + " has no such tensor",
                         "an index that belongs to its shards");
      }
      add(weights, std::move(at->second));
      held.erase(at);
    }
    weights.files.push_back(shard_path);
  }
  if (weights.tensors.empty()) {
    throw InputError(
        path.string() + ": \"weight_map\"", "no tensors", "a tensor name for each file");
  }
  return weights;
}

SafetensorsWeights read_file(const std::string& path) {
  SafetensorsWeights weights;
  for (auto& [name, tensor] : read_header(path)) {
    add(weights, std::move(tensor));
  }
  if (weights.tensors.empty()) {
    throw InputError(path, "no tensors in its header", "at least one");
  }
  weights.files.push_back(path);
  return weights;
}

/// The index if there is one, else the only .safetensors file.
SafetensorsWeights read_folder(const fs::path& folder) {
  const fs::path index = folder / "model.safetensors.index.json";
  if (is_regular_file(index.string())) {
    return read_index(index);
  }
  std::set<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") {
      found.insert(entry.path());
    }
  }
  if (found.size() != 1) {
    throw InputError(folder.string(),
                     std::to_string(found.size()) + " .safetensors files and no index",
                     "model.safetensors.index.json, or one .safetensors file");
  }
  return read_file(found.begin()->string());
}

}  // namespace

SafetensorsWeights read_safetensors_weights(const std::string& path) {
  SafetensorsWeights weights = is_directory(path)        ? read_folder(path)
                               : path.ends_with(".json") ? read_index(path)
                                                         : read_file(path);
  std::sort(weights.tensors.begin(), weights.tensors.end(), [](const Tensor& a, const Tensor& b) {
    return a.name < b.name;
  });
  return weights;
}

}  // namespace kvfathom
