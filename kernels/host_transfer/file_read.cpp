#include "kernels/host_transfer/file_read.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

#include "kernels/common/error.h"
#include "kernels/common/parallel.h"

namespace kvfathom::kernels {
namespace {

constexpr std::align_val_t kPage{kDirectAlignment};

[[noreturn]] void fail(const std::string& what, const std::filesystem::path& path) {
  throw std::system_error(errno, std::generic_category(), what + " " + path.string());
}

/// An open file. `is_open()` is false where opening failed, and errno says why.
class File {
 public:
  File(const std::filesystem::path& path, int flags)
      : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags)) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (is_open()) {
      ::close(descriptor_);
    }
  }
  [[nodiscard]] bool is_open() const { return descriptor_ >= 0; }
  [[nodiscard]] int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

/// A file system that opens a file for direct access may still refuse the first read.
class DirectRefused : public std::exception {};

/// Fills [to, to + n) from `offset`. A short read is continued; `read_bytes` >= n is what is asked
/// for, so that the end of a file can be read in whole blocks.
void read_fully(const File& file,
                const FileReadParams& params,
                std::byte* to,
                std::int64_t n,
                std::int64_t read_bytes,
                std::int64_t offset) {
  std::int64_t done = 0;
  while (done < n) {
    const ssize_t got = ::pread(file.descriptor(), to + done, read_bytes - done, offset + done);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0 && errno == EINVAL && params.access == FileAccess::direct) {
      throw DirectRefused();
    }
    if (got < 0) {
      fail("cannot read", params.path);
    }
    if (got == 0) {
      throw std::runtime_error(params.path.string() + " ends at byte " +
                               std::to_string(offset + done) + "; " +
                               std::to_string(params.offset + params.bytes) + " were asked for");
    }
    done += got;
  }
}

struct FreePage {
  void operator()(std::byte* memory) const { ::operator delete(memory, kPage); }
};

/// One request. The last of a file is rarely whole blocks: direct access reads those elsewhere.
void read_chunk(const File& file, const FileReadParams& params, std::int64_t first) {
  const std::int64_t n = std::min(params.chunk_bytes, params.bytes - first);
  const std::int64_t offset = params.offset + first;
  std::byte* const to = params.destination + first;
  if (params.access == FileAccess::page_cache || n % kDirectAlignment == 0) {
    read_fully(file, params, to, n, n, offset);
    return;
  }
  const std::int64_t whole = n / kDirectAlignment * kDirectAlignment;
  read_fully(file, params, to, whole, whole, offset);
  const std::unique_ptr<std::byte, FreePage> block(
      static_cast<std::byte*>(::operator new(kDirectAlignment, kPage)));
  read_fully(file, params, block.get(), n - whole, kDirectAlignment, offset + whole);
  std::memcpy(to + whole, block.get(), n - whole);
}

void read_all(const File& file, const FileReadParams& params) {
  const std::int64_t n_chunks = (params.bytes + params.chunk_bytes - 1) / params.chunk_bytes;
  if (n_chunks == 0) {
    return;
  }
  parallel_shares(params.n_threads, n_chunks, [&](int, std::int64_t first, std::int64_t last) {
    for (std::int64_t chunk = first; chunk < last; ++chunk) {
      read_chunk(file, params, chunk * params.chunk_bytes);
    }
  });
}

void check(const FileReadParams& params) {
  const auto address = reinterpret_cast<std::uintptr_t>(params.destination);
  if (params.offset < 0 || params.bytes < 0 || params.chunk_bytes <= 0 ||
      params.offset % kDirectAlignment != 0 || params.chunk_bytes % kDirectAlignment != 0 ||
      address % kDirectAlignment != 0) {
    throw UnsupportedShape(
        "a file is read from an offset, into a buffer and in chunks that are "
        "multiples of " +
        std::to_string(kDirectAlignment) + " bytes");
  }
}

FileReadResult read_through_page_cache(FileReadParams params, const std::string& fallback) {
  params.access = FileAccess::page_cache;
  const File file(params.path, 0);
  if (!file.is_open()) {
    fail("cannot open", params.path);
  }
  read_all(file, params);
  return FileReadResult{.access = FileAccess::page_cache, .fallback = fallback};
}

}  // namespace

FileReadResult file_read(const FileReadParams& params) {
  check(params);
  if (params.access == FileAccess::page_cache) {
    return read_through_page_cache(params, "");
  }
  const std::string refused = "the file system of " + params.path.string() +
                              " refuses direct access: read through the "
                              "page cache";
  const File file(params.path, O_DIRECT);
  if (!file.is_open()) {
    if (errno == EINVAL) {
      return read_through_page_cache(params, refused);
    }
    fail("cannot open", params.path);
  }
  try {
    read_all(file, params);
  } catch (const DirectRefused&) {
    return read_through_page_cache(params, refused);
  }
  return FileReadResult{.access = FileAccess::direct, .fallback = ""};
}

void drop_from_page_cache(const std::filesystem::path& path) {
  const File file(path, 0);
  if (!file.is_open()) {
    fail("cannot open", path);
  }
  if (::fsync(file.descriptor()) != 0) {  // dirty pages would stay
    fail("cannot write back", path);
  }
  errno = ::posix_fadvise(file.descriptor(), 0, 0, POSIX_FADV_DONTNEED);
  if (errno != 0) {
    fail("cannot drop from the page cache", path);
  }
}

}  // namespace kvfathom::kernels
