// Reading a stored cache from a file: through the page cache, or past it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

namespace kvfathom::kernels {

enum class FileAccess : std::uint8_t {
  page_cache,
  direct,  ///< O_DIRECT: from the device straight into the buffer, nothing kept
};

/// Offsets, buffers and the sizes in between of direct reads are multiples of this.
inline constexpr std::int64_t kDirectAlignment = 4096;

struct FileReadParams {
  std::filesystem::path path;
  std::int64_t offset = 0;           ///< in bytes; a multiple of kDirectAlignment
  std::int64_t bytes = 0;            ///< any number that the file holds from there
  std::byte* destination = nullptr;  ///< [bytes], on a kDirectAlignment boundary
  FileAccess access = FileAccess::page_cache;
  std::int64_t chunk_bytes = 8 << 20;  ///< of one request; a multiple of kDirectAlignment
  int n_threads = 1;                   ///< each has one request on its way; 0: all
};

struct FileReadResult {
  FileAccess access = FileAccess::page_cache;  ///< what was used
  std::string fallback;  ///< why that is not what was asked for; empty where it is
};

/// Reads the bytes. A file system that refuses direct access is read through the page cache, and
/// the result says so. Throws std::system_error where the file cannot be read, std::runtime_error
/// where it is too short, UnsupportedShape for misaligned arguments.
FileReadResult file_read(const FileReadParams& params);

/// Asks the kernel to drop what it holds of a file, so that the next read is a cold one. Advice: it
/// keeps what others have mapped. Throws std::system_error.
void drop_from_page_cache(const std::filesystem::path& path);

}  // namespace kvfathom::kernels
