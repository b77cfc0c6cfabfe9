#include "model/io/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>

#include "model/error.h"

static_assert(std::endian::native == std::endian::little, "GGUF numbers are read as they lie");

namespace kvfathom {
namespace {

using namespace std::string_literals;

constexpr std::int64_t kDefaultAlignment = 32;
// Real files have tens of keys and up to about 1e5 tensors (experts stored one by one); these
// bounds keep what is stored per entry small beside any file that could be meant seriously.
constexpr std::uint64_t kMaxEntries = 1U << 16U;
constexpr std::uint64_t kMaxTensors = 1U << 20U;
constexpr std::uint32_t kMaxDims = 4;
constexpr std::size_t kMaxNameBytes = 256;
constexpr std::int64_t kMaxInt64 = std::numeric_limits<std::int64_t>::max();

/// Bytes of one element by GgufType; 0 where elements differ in length.
constexpr std::array<std::uint64_t, 13> kTypeBytes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

template <class T>
T load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

/// Walks the bytes and refuses to step outside them. Knows what it is reading, so that a message
/// can say so; nothing is formatted unless one is needed.
class Cursor {
 public:
  Cursor(std::string_view bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  /// What is read from here on: the `index`-th `kind` ("key", "tensor").
  void enter(const char* kind, std::uint64_t index) {
    kind_ = kind;
    index_ = index;
    name_ = {};
  }
  /// The same once its name is known.
  void name(std::string_view name) { name_ = name; }
  void leave() { kind_ = nullptr; }

  [[nodiscard]] std::uint64_t at() const { return at_; }
  [[nodiscard]] std::uint64_t left() const { return bytes_.size() - at_; }

  std::string_view take(std::uint64_t n, const char* what) {
    if (n > left()) {
      fail("the file ends within the "s + what + ", at byte " + std::to_string(bytes_.size()),
           "at least " + std::to_string(at_ + n) + " bytes");
    }
    const std::string_view taken = bytes_.substr(at_, n);
    at_ += n;
    return taken;
  }

  template <class T>
  T number(const char* what) {
    return load<T>(take(sizeof(T), what).data());
  }

  std::string_view string(const char* what) {
    const auto length = number<std::uint64_t>(what);
    if (length > left()) {
      too_long(what, length, left());
    }
    return take(length, what);
  }

  /// The bytes of `count` strings, found by hopping from length to length: nothing is copied, and
  /// a vocabulary of 1.5e5 tokens passes in well under a millisecond.
  std::string_view strings(std::uint64_t count) {
    const char* const begin = bytes_.data() + at_;
    const char* const end = bytes_.data() + bytes_.size();
    const char* p = begin;
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto rest = static_cast<std::uint64_t>(end - p);
      if (rest < sizeof(std::uint64_t)) {
        fail("the file ends at element " + std::to_string(i) + " of " + std::to_string(count),
             "a whole array");
      }
      const auto length = load<std::uint64_t>(p);
      if (length > rest - sizeof(std::uint64_t)) {
        too_long(("element " + std::to_string(i)).c_str(), length, rest - sizeof(std::uint64_t));
      }
      p += sizeof(std::uint64_t) + length;
    }
    return take(static_cast<std::uint64_t>(p - begin), "array");
  }

  [[noreturn]] void fail(const std::string& found, const std::string& allowed) const {
    throw InputError(where(), found, allowed);
  }

  [[nodiscard]] std::string where() const {
    if (kind_ == nullptr) {
      return path_;
    }
    return path_ + ": " + kind_ + " " + (name_.empty() ? std::to_string(index_) : in_quotes(name_));
  }

 private:
  [[noreturn]] void too_long(const char* what, std::uint64_t length, std::uint64_t left) const {
    fail("the "s + what + " is " + std::to_string(length) + " bytes long",
         "at most the " + std::to_string(left) + " left in the file");
  }

  std::string_view bytes_;
  const std::string& path_;
  std::uint64_t at_ = 0;
  const char* kind_ = nullptr;
  std::uint64_t index_ = 0;
  std::string_view name_;
};

GgufType read_value_type(Cursor& cursor) {
  const auto id = cursor.number<std::uint32_t>("value type");
  if (id >= kTypeBytes.size()) {
    cursor.fail("value type " + std::to_string(id), "0 to 12");
  }
  return static_cast<GgufType>(id);
}

GgufValue read_array(Cursor& cursor) {
  GgufValue value;
  value.type = read_value_type(cursor);
  value.is_array = true;
  if (value.type == GgufType::array) {
    cursor.fail("an array of arrays", "an array of numbers, booleans or strings");
  }
  const auto count = cursor.number<std::uint64_t>("array length");
  const bool strings = value.type == GgufType::string;
  const std::uint64_t each =
      strings ? sizeof(std::uint64_t) : kTypeBytes.at(static_cast<std::size_t>(value.type));
  if (count > cursor.left() / each) {
    cursor.fail("an array of " + std::to_string(count) + " elements",
                "at most the " + std::to_string(cursor.left() / each) +
                    " that the rest of the file can hold");
  }
  value.count = static_cast<std::int64_t>(count);
  value.data = strings ? cursor.strings(count) : cursor.take(count * each, "array");
  return value;
}

GgufEntry read_entry(Cursor& cursor, std::uint64_t index) {
  cursor.enter("key", index);
  GgufEntry entry;
  entry.key = cursor.string("name");
  if (entry.key.empty()) {
    cursor.fail("its name is empty", "a name");
  }
  cursor.name(entry.key);
  entry.value.type = read_value_type(cursor);
  switch (entry.value.type) {
    case GgufType::array:
      entry.value = read_array(cursor);
      break;
    case GgufType::string:
      entry.value.data = cursor.string("string");
      break;
    default:
      entry.value.data =
          cursor.take(kTypeBytes.at(static_cast<std::size_t>(entry.value.type)), "value");
  }
  cursor.leave();
  return entry;
}

/// a * b, or nothing if it does not fit; both are non-negative.
std::optional<std::int64_t> product(std::int64_t a, std::int64_t b) {
  if (b != 0 && a > kMaxInt64 / b) {
    return std::nullopt;
  }
  return a * b;
}

void read_shape(Cursor& cursor, GgufTensor& tensor) {
  const auto n_dims = cursor.number<std::uint32_t>("number of dimensions");
  if (n_dims > kMaxDims) {
    cursor.fail(std::to_string(n_dims) + " dimensions", "0 to 4");
  }
  std::optional<std::int64_t> elements = 1;
  for (std::uint32_t axis = 0; axis < n_dims; ++axis) {
    const auto extent = cursor.number<std::int64_t>("shape");
    if (extent < 1) {
      cursor.fail("axis " + std::to_string(axis) + " has extent " + std::to_string(extent),
                  "a positive number");
    }
    tensor.shape.at(axis) = extent;
    elements = elements ? product(*elements, extent) : elements;
  }
  // No type has more than 8 bytes an element, so sizes in bytes cannot overflow either.
  if (!elements || *elements > kMaxInt64 / 16) {
    cursor.fail("more than 2^59 elements", "a tensor that can exist");
  }
}

void read_type(Cursor& cursor, GgufTensor& tensor) {
  const auto id = cursor.number<std::uint32_t>("type");
  const auto dtype = dtype_of_ggml(id);
  if (!dtype) {
    throw Unsupported(cursor.where(),
                      "ggml type " + std::to_string(id),
                      "a type that ggml has today, 0 to 42 with gaps");
  }
  tensor.dtype = *dtype;
  const DTypeInfo& type = info(*dtype);
  if (tensor.shape[0] % type.block_elements != 0) {
    cursor.fail("rows of " + std::to_string(tensor.shape[0]) + " elements of type " +
                    std::string(type.name),
                "a multiple of " + std::to_string(type.block_elements));
  }
  tensor.data_bytes =
      row_bytes(*dtype, tensor.shape[0]) * tensor.shape[1] * tensor.shape[2] * tensor.shape[3];
}

GgufTensor read_tensor(Cursor& cursor, std::uint64_t index) {
  cursor.enter("tensor", index);
  GgufTensor tensor;
  tensor.name = cursor.string("name");
  if (tensor.name.empty() || tensor.name.size() > kMaxNameBytes) {
    cursor.fail("a name of " + std::to_string(tensor.name.size()) + " bytes",
                "1 to " + std::to_string(kMaxNameBytes));
  }
  cursor.name(tensor.name);
  read_shape(cursor, tensor);
  read_type(cursor, tensor);
  tensor.offset_bytes = cursor.number<std::int64_t>("offset");
  cursor.leave();
  return tensor;
}

std::uint64_t read_count(Cursor& cursor, const char* what, std::uint64_t max) {
  const auto count = cursor.number<std::uint64_t>(what);
  if (count > max) {
    cursor.fail("the "s + what + " is " + std::to_string(count), "at most " + std::to_string(max));
  }
  return count;
}

std::uint32_t read_magic_and_version(Cursor& cursor) {
  const std::string_view magic = cursor.take(4, "magic");
  if (magic != "GGUF") {
    cursor.fail("begins with " + in_quotes(magic), "a GGUF file, which begins with \"GGUF\"");
  }
  const auto version = cursor.number<std::uint32_t>("version");
  if (version != 0 && (version & 0xFFFFU) == 0) {
    cursor.fail("is big-endian", "a little-endian GGUF file");
  }
  if (version != 2 && version != 3) {
    cursor.fail("is GGUF version " + std::to_string(version), "version 2 or 3");
  }
  return version;
}

std::int64_t read_alignment(const GgufHeader& header) {
  constexpr std::string_view kKey = "general.alignment";
  const GgufValue* value = header.find(kKey);
  if (value == nullptr) {
    return kDefaultAlignment;
  }
  const std::string where = header.path + ": key " + in_quotes(kKey);
  if (value->is_array || value->type != GgufType::u32) {
    throw InputError(where, "not a u32", "a power of two");
  }
  const auto alignment = load<std::uint32_t>(value->data.data());
  if (!std::has_single_bit(alignment)) {
    throw InputError(where, std::to_string(alignment), "a power of two");
  }
  return alignment;
}

template <class Item>
void refuse_duplicates(const std::vector<Item>& items,
                       std::string_view Item::*name,
                       const std::string& where) {
  std::vector<std::string_view> names;
  names.reserve(items.size());
  for (const Item& item : items) {
    names.push_back(item.*name);
  }
  std::ranges::sort(names);
  const auto twice = std::ranges::adjacent_find(names);
  if (twice != names.end()) {
    throw InputError(where + " " + in_quotes(*twice), "occurs twice", "each name once");
  }
}

/// `n` rounded up to a multiple of `alignment`, a power of two; nothing if that does not fit.
std::optional<std::int64_t> align_up(std::int64_t n, std::int64_t alignment) {
  const std::int64_t mask = alignment - 1;
  return n > kMaxInt64 - mask ? std::nullopt : std::optional((n + mask) & ~mask);
}

/// Data lie back to back in the order of the infos, each aligned: llama.cpp refuses any other
/// layout, so an offset that differs is damage. Sets header_only.
void check_layout(GgufHeader& header, std::int64_t file_bytes) {
  const auto where = [&](const GgufTensor& tensor) {
    return header.path + ": tensor " + in_quotes(tensor.name);
  };
  std::int64_t offset = 0;  // from the start of the data
  std::int64_t end = header.data_offset_bytes;
  for (const GgufTensor& tensor : header.tensors) {
    if (tensor.offset_bytes != offset) {
      throw InputError(where(tensor),
                       "offset " + std::to_string(static_cast<std::uint64_t>(tensor.offset_bytes)),
                       std::to_string(offset) + ", right behind the tensor before it");
    }
    const bool fits = tensor.data_bytes <= kMaxInt64 - header.data_offset_bytes - offset;
    const auto next =
        fits ? align_up(offset + tensor.data_bytes, header.alignment_bytes) : std::nullopt;
    if (!next || *next > kMaxInt64 - header.data_offset_bytes) {
      throw InputError(where(tensor), "ends beyond 2^63 bytes", "a file that can exist");
    }
    end = header.data_offset_bytes + offset + tensor.data_bytes;
    offset = *next;
  }
  if (!header.tensors.empty() && file_bytes < end) {
    if (file_bytes > header.data_offset_bytes) {
      throw InputError(header.path,
                       "is truncated at " + std::to_string(file_bytes) + " bytes",
                       std::to_string(end) + " bytes, by its tensor infos");
    }
    header.header_only = true;
  }
}

}  // namespace

const GgufValue* GgufHeader::find(std::string_view key) const {
  const auto entry = std::ranges::find(entries, key, &GgufEntry::key);
  return entry == entries.end() ? nullptr : &entry->value;
}

GgufHeader parse_gguf(std::string_view bytes, const std::string& path) {
  Cursor cursor(bytes, path);
  GgufHeader header;
  header.path = path;
  header.version = read_magic_and_version(cursor);
  const std::uint64_t n_tensors = read_count(cursor, "number of tensors", kMaxTensors);
  const std::uint64_t n_entries = read_count(cursor, "number of keys", kMaxEntries);
  // Both lists grow with what is found, never by what the file claims.
  for (std::uint64_t i = 0; i < n_entries; ++i) {
    header.entries.push_back(read_entry(cursor, i));
  }
  refuse_duplicates(header.entries, &GgufEntry::key, path + ": key");
  header.alignment_bytes = read_alignment(header);
  for (std::uint64_t i = 0; i < n_tensors; ++i) {
    header.tensors.push_back(read_tensor(cursor, i));
  }
  refuse_duplicates(header.tensors, &GgufTensor::name, path + ": tensor");
  header.data_offset_bytes =
      align_up(static_cast<std::int64_t>(cursor.at()), header.alignment_bytes).value();
  check_layout(header, static_cast<std::int64_t>(bytes.size()));
  return header;
}

GgufFile open_gguf(const std::string& path) {
  MappedFile file = MappedFile::open(path);
  GgufHeader header = parse_gguf(file.bytes(), path);
  return {std::move(file), std::move(header)};
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kMaxShown = 64;
  std::string line = "\"";
  for (const char c : text.substr(0, kMaxShown)) {
    line += c >= ' ' && c <= '~' && c != '"' ? c : '?';
  }
  return line + (text.size() > kMaxShown ? "...\"" : "\"");
}

}  // namespace kvfathom
