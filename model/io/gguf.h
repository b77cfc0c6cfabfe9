// The header of a GGUF file (versions 2 and 3): keys, values and tensor infos, as views into the
// file's bytes. Tensor data are never touched. Format: ggml's docs/gguf.md.
//
// The bytes may come from a stranger. Every count and length is checked against what is left of
// the file before anything is stored, so memory stays in proportion to the header that is really
// there; whatever is wrong is an InputError that names file, field, value found and value allowed.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/dtype.h"
#include "model/io/file.h"

namespace kvfathom {

/// Value types with the ids that files carry.
enum class GgufType : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64,
};

/// A value where the file holds it.
struct GgufValue {
  GgufType type = GgufType::u8;  ///< of the value, or of each element of an array
  bool is_array = false;
  std::int64_t count = 1;  ///< elements
  /// A number's bytes (little-endian), a string's text, or an array's elements as stored: numbers
  /// packed, each string behind its length in eight bytes.
  std::string_view data;
};

struct GgufEntry {
  std::string_view key;
  GgufValue value;
};

/// One tensor info. The data lie at GgufHeader::data_offset_bytes + offset_bytes.
struct GgufTensor {
  std::string_view name;
  std::array<std::int64_t, 4> shape{1, 1, 1, 1};  ///< shape[0] is the contiguous axis
  DType dtype = DType::f32;
  std::int64_t offset_bytes = 0;
  std::int64_t data_bytes = 0;  ///< without alignment
};

/// The header of one file; its views point into the bytes that were parsed.
struct GgufHeader {
  std::string path;  ///< for messages
  std::uint32_t version = 0;
  std::vector<GgufEntry> entries;   ///< in file order; keys differ
  std::vector<GgufTensor> tensors;  ///< in file order; names differ
  std::int64_t alignment_bytes = 0;
  std::int64_t data_offset_bytes = 0;  ///< where tensor data begin (or would)
  /// The file stops where tensor data would begin: good for planning, not for running. A file
  /// that stops anywhere else short of its last tensor is refused as truncated.
  bool header_only = false;

  /// The value of `key`, or nullptr.
  [[nodiscard]] const GgufValue* find(std::string_view key) const;
};

/// Parses the header at the front of `bytes`, the content of a whole file. `path` is for messages.
[[nodiscard]] GgufHeader parse_gguf(std::string_view bytes, const std::string& path);

/// A mapped file and its header, whose views live as long as the mapping.
struct GgufFile {
  MappedFile file;
  GgufHeader header;
};

[[nodiscard]] GgufFile open_gguf(const std::string& path);

/// All files of a model, in order: one, or every shard of a split file (NAME-00001-of-00003.gguf,
/// keys split.no, split.count, split.tensors.count), whichever shard `path` names. A missing shard
/// and a tensor that two shards hold are InputErrors.
[[nodiscard]] std::vector<GgufFile> open_gguf_shards(const std::string& path);

/// `text` between quotes, fit for one line of a message: cut at 64 bytes, with '?' for control
/// characters and for what is not ASCII.
[[nodiscard]] std::string in_quotes(std::string_view text);

}  // namespace kvfathom
