// Reading regular files that may come from strangers: mapped, or whole with a size bound; and
// writing one whole.
//
// Anything that is not a regular file is refused by kind and never waited for (opening a FIFO
// would block). A missing, empty, oversized or unreadable file is an InputError; a failing disk
// is a MachineError.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvfathom {

/// A regular, non-empty file mapped read-only. Pages are read when touched, so a view of a large
/// file costs only what is looked at. Move-only; views into it live as long as it does.
class MappedFile {
 public:
  /// Throws InputError or MachineError, both naming the path.
  [[nodiscard]] static MappedFile open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  [[nodiscard]] const std::string& path() const { return path_; }
  /// The whole file.
  [[nodiscard]] std::string_view bytes() const { return {data_, size_}; }
  [[nodiscard]] std::int64_t size_bytes() const { return static_cast<std::int64_t>(size_); }

 private:
  MappedFile(std::string path, const char* data, std::size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  std::string path_;
  const char* data_ = nullptr;
  std::size_t size_ = 0;
};

/// The whole of a regular file, refused (InputError) if it holds more than `max_bytes` or nothing.
/// Meant for JSON: configs are a few KiB, tensor indices a few MiB.
[[nodiscard]] std::string read_text_file(const std::string& path,
                                         std::int64_t max_bytes = std::int64_t{64} << 20);

/// Writes `text` as the whole of `path`, through a temporary beside it that is flushed to the disk
/// and then renamed: a reader, or a crash, sees the old file or the new one.  MachineError naming
/// the path.
void write_file(const std::string& path, std::string_view text);

/// Whether `path` names an existing regular file (after links). Never throws, never blocks.
[[nodiscard]] bool is_regular_file(const std::string& path);
/// Whether `path` names an existing directory (after links). Never throws, never blocks.
[[nodiscard]] bool is_directory(const std::string& path);

}  // namespace kvfathom
