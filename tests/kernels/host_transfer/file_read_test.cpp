// Reading files through the page cache and past it.
#include "kernels/host_transfer/file_read.h"

#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <string>
#include <system_error>

#include <gtest/gtest.h>
#include <unistd.h>

#include "kernels/common/error.h"
#include "model/ops/host_transfer.h"

namespace kvfathom::kernels {
namespace {

constexpr std::align_val_t kPage{kDirectAlignment};

/// A page-aligned buffer with a guard behind it that no read may touch.
class Pages {
 public:
  explicit Pages(std::int64_t bytes)
      : bytes_(bytes), memory_(static_cast<char*>(::operator new(bytes + kGuard, kPage))) {
    std::fill_n(memory_.get(), bytes + kGuard, kPoison);
  }
  [[nodiscard]] std::byte* data() const { return reinterpret_cast<std::byte*>(memory_.get()); }
  [[nodiscard]] std::string text() const { return {memory_.get(), memory_.get() + bytes_}; }
  [[nodiscard]] bool guard_is_whole() const {
    return std::string(memory_.get() + bytes_, kGuard) == std::string(kGuard, kPoison);
  }

 private:
  static constexpr std::int64_t kGuard = 64;
  static constexpr char kPoison = '\x5a';
  struct Free {
    void operator()(char* memory) const { ::operator delete(memory, kPage); }
  };
  std::int64_t bytes_;
  std::unique_ptr<char, Free> memory_;
};

/// A file of random bytes, removed at the end.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::int64_t bytes) : content_(bytes, '\0') {
    std::mt19937_64 random(3);
    for (char& byte : content_) {
      byte = static_cast<char>(random());
    }
    path_ = std::filesystem::path(testing::TempDir()) /
            ("kvfathom_file_read_" + std::to_string(::getpid()) + "_" + std::to_string(bytes));
    std::ofstream(path_, std::ios::binary) << content_;
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() { std::filesystem::remove(path_); }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] const std::string& content() const { return content_; }

 private:
  std::filesystem::path path_;
  std::string content_;
};

TEST(FileRead, GivesTheBytesOfTheFileEitherWay) {
  for (const std::int64_t bytes : {0, 1, 4095, 4096, 4097, 12288, 100001}) {
    const TemporaryFile file(bytes);
    drop_from_page_cache(file.path());
    for (const FileAccess access : {FileAccess::page_cache, FileAccess::direct}) {
      for (const int n_threads : {1, 3}) {
        const Pages pages(bytes);
        const FileReadResult result = file_read({.path = file.path(),
                                                 .bytes = bytes,
                                                 .destination = pages.data(),
                                                 .access = access,
                                                 .chunk_bytes = 8192,
                                                 .n_threads = n_threads});
        EXPECT_EQ(pages.text(), file.content()) << bytes << " bytes, " << n_threads << " threads";
        EXPECT_TRUE(pages.guard_is_whole());
        EXPECT_EQ(result.fallback.empty(), result.access == access);
      }
    }
  }
}

TEST(FileRead, ReadsAPartOfAFile) {
  const TemporaryFile file(30000);
  for (const FileAccess access : {FileAccess::page_cache, FileAccess::direct}) {
    const Pages pages(10000);
    file_read({.path = file.path(),
               .offset = 8192,
               .bytes = 10000,
               .destination = pages.data(),
               .access = access,
               .chunk_bytes = 4096});
    EXPECT_EQ(pages.text(), file.content().substr(8192, 10000));
  }
}

/// What the system has counted of this process's reads; nothing where it does not count.
struct ReadCalls {
  std::int64_t bytes = 0;
  std::int64_t requests = 0;

  static std::optional<ReadCalls> so_far() {
    std::ifstream file("/proc/self/io");
    ReadCalls calls;
    std::string bytes, written, requests;
    if (file >> bytes >> calls.bytes >> written >> written >> requests >> calls.requests &&
        bytes == "rchar:" && requests == "syscr:") {
      return calls;
    }
    return std::nullopt;
  }
};

// The system's own count also holds reading the count, which costs the same every time.
TEST(FileRead, AsksForTheBytesAndRequestsOfTheModel) {
  const TemporaryFile file(100 * 4096);
  const Pages pages(100 * 4096);
  for (const FileAccess access : {FileAccess::page_cache, FileAccess::direct}) {
    const auto before = ReadCalls::so_far();
    const auto without = ReadCalls::so_far();
    const FileReadResult result = file_read({.path = file.path(),
                                             .bytes = 100 * 4096,
                                             .destination = pages.data(),
                                             .access = access,
                                             .chunk_bytes = 8 * 4096});
    const auto after = ReadCalls::so_far();
    if (!before || !without || !after) {
      GTEST_SKIP() << "no /proc/self/io that counts reads";
    }
    if (result.access != access) {
      continue;  // refused: its requests were made twice
    }
    const OpCost cost = file_read_cost({.size = Bytes(100 * 4096),
                                        .bytes_per_request = Bytes(8 * 4096),
                                        .past_page_cache = access == FileAccess::direct});
    const std::int64_t own_requests = without->requests - before->requests;
    EXPECT_EQ(after->requests - without->requests - own_requests, cost.launches);
    // The count has a handful of digits more or fewer.
    EXPECT_NEAR(
        static_cast<double>(after->bytes - without->bytes - (without->bytes - before->bytes)),
        cost.written.value(),
        64.0);
    EXPECT_EQ(cost.read.value(), access == FileAccess::direct ? 0.0 : cost.written.value());
  }
}

TEST(FileRead, SaysWhereDirectAccessIsRefused) {
  const std::string path = "/proc/self/stat";          // no file system of blocks
  const std::string pid = std::to_string(::getpid());  // what it begins with
  const auto bytes = static_cast<std::int64_t>(pid.size());
  const Pages pages(bytes);
  const FileReadResult result = file_read(
      {.path = path, .bytes = bytes, .destination = pages.data(), .access = FileAccess::direct});
  EXPECT_EQ(result.access, FileAccess::page_cache);
  EXPECT_EQ(
      result.fallback,
      "the file system of /proc/self/stat refuses direct access: read through the page cache");
  EXPECT_EQ(pages.text(), pid);
}

TEST(FileRead, RefusesWhatIsNotThere) {
  const TemporaryFile file(5000);
  const Pages pages(8192);
  FileReadParams params{.path = file.path(), .bytes = 5001, .destination = pages.data()};
  for (const FileAccess access : {FileAccess::page_cache, FileAccess::direct}) {
    params.access = access;
    try {
      file_read(params);
      ADD_FAILURE() << "read more than there is";
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(std::string(error.what()),
                file.path().string() + " ends at byte 5000; 5001 were asked for");
    }
  }
  params.path = "/nonexistent/file";
  EXPECT_THROW(file_read(params), std::system_error);
  EXPECT_THROW(drop_from_page_cache(params.path), std::system_error);
}

TEST(FileRead, RefusesMisalignedArguments) {
  const Pages pages(8192);
  const FileReadParams right{.path = "/dev/null", .bytes = 0, .destination = pages.data()};
  const auto with = [&](auto change) {
    FileReadParams params = right;
    change(params);
    return params;
  };
  EXPECT_NO_THROW(file_read(right));
  EXPECT_THROW(file_read(with([](auto& p) { p.offset = 512; })), UnsupportedShape);
  EXPECT_THROW(file_read(with([](auto& p) { p.destination += 16; })), UnsupportedShape);
  EXPECT_THROW(file_read(with([](auto& p) { p.chunk_bytes = 1000; })), UnsupportedShape);
  EXPECT_THROW(file_read(with([](auto& p) { p.bytes = -1; })), UnsupportedShape);
}

}  // namespace
}  // namespace kvfathom::kernels
