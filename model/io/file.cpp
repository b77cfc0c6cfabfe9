#include "model/io/file.h"

#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/error.h"

namespace kvfathom {
namespace {

/// Closes on scope exit.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

/// What the user can mend is the user's error; the rest is the machine's.
[[noreturn]] void throw_errno(const std::string& path, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      throw InputError(path, "no such file", "a readable regular file");
    case EACCES:
    case EPERM:
      throw InputError(path, "no permission to read it", "a readable regular file");
    case ELOOP:
      throw InputError(path, "its links form a cycle", "a readable regular file");
    case ENAMETOOLONG:
      throw InputError(path, "the name is too long", "a readable regular file");
    default:
      throw MachineError(path, "cannot be read: " + std::generic_category().message(error), "");
  }
}

/// Refuses, by kind, whatever is not a regular file.
void require_regular(const std::string& path, mode_t mode) {
  const char* kind = nullptr;
  if (S_ISDIR(mode)) {
    kind = "is a directory";
  } else if (S_ISFIFO(mode)) {
    kind = "is a FIFO";
  } else if (S_ISCHR(mode) || S_ISBLK(mode)) {
    kind = "is a device";
  } else if (S_ISSOCK(mode)) {
    kind = "is a socket";
  } else if (!S_ISREG(mode)) {
    kind = "is not a regular file";
  }
  if (kind != nullptr) {
    throw InputError(path, kind, "a readable regular file");
  }
}

struct OpenFile {
  Descriptor descriptor;
  std::size_t size_bytes;
};

/// Looks before it opens, because opening a device can have effects, and again afterwards, because
/// the name may have changed meaning; O_NONBLOCK keeps even that race from waiting on a FIFO.
OpenFile open_regular(const std::string& path) {
  if (path.find('\0') != std::string::npos) {
    throw InputError("file name", "holds a zero byte", "a readable regular file");
  }
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    throw_errno(path, errno);
  }
  require_regular(path, status.st_mode);
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-vararg): the system call is variadic
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    throw_errno(path, errno);
  }
  OpenFile file{Descriptor(fd), 0};
  if (::fstat(fd, &status) != 0) {
    throw_errno(path, errno);
  }
  require_regular(path, status.st_mode);
  if (status.st_size <= 0) {
    throw InputError(path, "is empty", "a file with content");
  }
  file.size_bytes = static_cast<std::size_t>(status.st_size);
  return file;
}

mode_t mode_of(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? status.st_mode : mode_t{0};
}

}  // namespace

MappedFile MappedFile::open(const std::string& path) {
  const OpenFile file = open_regular(path);
  void* const data =
      ::mmap(nullptr, file.size_bytes, PROT_READ, MAP_PRIVATE, file.descriptor.get(), 0);
  if (data == MAP_FAILED) {  // NOLINT(performance-no-int-to-ptr): the system's macro
    throw_errno(path, errno);
  }
  return {path, static_cast<const char*>(data), file.size_bytes};
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    ::munmap(const_cast<char*>(data_), size_);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  }
}

std::string read_text_file(const std::string& path, std::int64_t max_bytes) {
  const OpenFile file = open_regular(path);
  if (static_cast<std::int64_t>(file.size_bytes) > max_bytes) {
    throw InputError(path,
                     "holds " + std::to_string(file.size_bytes) + " bytes",
                     "at most " + std::to_string(max_bytes));
  }
  std::string text(file.size_bytes, '\0');
  std::size_t have = 0;
  while (have < text.size()) {
    const ssize_t got = ::read(file.descriptor.get(), text.data() + have, text.size() - have);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      throw_errno(path, errno);
    }
    if (got == 0) {  // shrank while we read
      text.resize(have);
      break;
    }
    have += static_cast<std::size_t>(got);
  }
  return text;
}

void write_file(const std::string& path, std::string_view text) {
  const std::string temporary = path + "." + std::to_string(::getpid()) + ".new";
  const auto fail = [&](const char* what) {
    const int error = errno;
    ::unlink(temporary.c_str());
    throw MachineError(path, std::string(what) + ": " + std::generic_category().message(error), "");
  };
  constexpr mode_t kMode = 0644;
  const Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kMode));
  if (file.get() < 0) {
    fail("cannot be written");
  }
  while (!text.empty()) {
    const ssize_t n = ::write(file.get(), text.data(), text.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      fail("cannot be written");
    }
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  if (::fsync(file.get()) != 0) {
    fail("does not reach the disk");
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    fail("cannot be put in place");
  }
}

bool is_regular_file(const std::string& path) {
  return S_ISREG(mode_of(path));
}

bool is_directory(const std::string& path) {
  return S_ISDIR(mode_of(path));
}

}  // namespace kvfathom
