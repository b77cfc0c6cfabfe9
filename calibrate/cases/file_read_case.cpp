// A stored cache read back from a file, which lies in the system's folder for temporary files
// (TMPDIR): out of a warm page cache, and past it.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <system_error>

#include <unistd.h>

#include "calibrate/cases/case.h"
#include "kernels/host_transfer/file_read.h"
#include "model/ops/host_transfer.h"

namespace kvfathom::bench {
namespace {

using kernels::FileAccess;
using kernels::kDirectAlignment;

/// Rounded down to what direct access asks for.
std::int64_t aligned(const Shape& shape, const char* dim) {
  return std::max(shape[dim] / kDirectAlignment, std::int64_t{1}) * kDirectAlignment;
}

FileAccess access_of(const Request& request) {
  return request.format == "direct" ? FileAccess::direct : FileAccess::page_cache;
}

std::vector<std::uint32_t> content(std::int64_t bytes, int set) {
  std::vector<std::uint32_t> words(bytes / 4);
  fill_random(words, static_cast<std::uint64_t>(set));
  return words;
}

/// Removed at the end, also where filling it failed.
class TemporaryFile {
 public:
  TemporaryFile()
      : path_(std::filesystem::temp_directory_path() /
              ("kvfathom_bench_" + std::to_string(::getpid()))) {}
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }

  /// Random bytes for every set, one set after the other.
  void fill(std::int64_t bytes_per_set, int n_sets) const {
    std::ofstream file(path_, std::ios::binary);
    file.exceptions(std::ios::failbit | std::ios::badbit);
    for (int set = 0; set < n_sets; ++set) {
      const std::vector<std::uint32_t> words = content(bytes_per_set, set);
      file.write(reinterpret_cast<const char*>(words.data()), bytes_per_set);
    }
    file.close();
  }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

class FileReadRun : public PreparedRun {
 public:
  FileReadRun(const Request& request, int n_sets)
      : request_(request), bytes_(aligned(request.shape, "bytes")) {
    file_.fill(bytes_, n_sets);
    const std::vector<std::uint32_t> unread(bytes_ / 4, 0xffffffffU);
    for (int set = 0; set < n_sets; ++set) {
      destinations_.emplace_back(request.place, unread);
    }
    if (access_of(request) == FileAccess::direct) {
      kernels::drop_from_page_cache(file_.path());
    }
  }

  void run(int set, Stream /*stream*/) override {
    result_ =
        kernels::file_read({.path = file_.path(),
                            .offset = set * bytes_,
                            .bytes = bytes_,
                            .destination = reinterpret_cast<std::byte*>(destinations_[set].data()),
                            .access = access_of(request_),
                            .chunk_bytes = aligned(request_.shape, "bytes_per_request"),
                            .n_threads = request_.n_threads});
  }

  /// Every byte must be right: any error counts as infinite.
  double worst_error() override {
    return destinations_[0].to_host() == content(bytes_, 0)
               ? 0.0
               : std::numeric_limits<double>::infinity();
  }
  [[nodiscard]] std::string remark() const override { return result_.fallback; }

 private:
  Request request_;
  std::int64_t bytes_;
  TemporaryFile file_;
  std::vector<Array<std::uint32_t>> destinations_;
  kernels::FileReadResult result_;
};

Case make_case(const Request& request) {
  const auto size = static_cast<double>(aligned(request.shape, "bytes"));
  const auto per_request = static_cast<double>(aligned(request.shape, "bytes_per_request"));
  return Case{.cost = file_read_cost({.size = Bytes(size),
                                      .bytes_per_request = Bytes(per_request),
                                      .past_page_cache = access_of(request) == FileAccess::direct}),
              .bytes_per_set = size,
              .prepare = prepare_with<FileReadRun>(request)};
}

Shape shape_of(std::int64_t bytes, std::int64_t bytes_per_request) {
  return {{"bytes", bytes}, {"bytes_per_request", bytes_per_request}};
}

const Registration kFileRead({.name = "file_read",
                              .formats = {"page_cache", "direct"},
                              .tiny = shape_of(3 << 16, 1 << 16),
                              .shapes = {shape_of(64 << 20, 8 << 20), shape_of(64 << 20, 1 << 20)},
                              .make_case = make_case,
                              .places = {Place::cpu}});

}  // namespace
}  // namespace kvfathom::bench
