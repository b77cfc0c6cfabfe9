// The device that launches run on: a CUDA GPU, the emulator (tests only), or none.
//
// Which one it is, is decided by the library that is linked: kvfathom_kernels holds the CUDA
// backend, or one file that says that it was not built; kvfathom_kernels_emulated runs the same
// kernel sources on the CPU, thread by thread. No other code asks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

struct CUstream_st;  // cudaStream_t, without CUDA's headers

namespace kvfathom::kernels {

using Stream = CUstream_st*;

/// What launch rules depend on.
struct DeviceInfo {
  std::string name;
  bool emulated = false;
  int compute_capability = 0;  ///< 10 * major + minor
  int n_multiprocessors = 0;
  std::int64_t shared_bytes_per_block = 0;  ///< with the opt-in
  std::int64_t l2_bytes = 0;
  std::int64_t memory_bytes = 0;
};

/// Why there is no device to launch on; empty where there is one.
[[nodiscard]] std::string device_missing();
/// The current device. Throws NoDevice where there is none.
[[nodiscard]] const DeviceInfo& device();

/// Device memory, 256-byte aligned. Throws NoDevice or DeviceError.
[[nodiscard]] void* device_allocate(std::size_t bytes);
void device_free(void* memory) noexcept;
void copy_to_device(void* to, const void* from, std::size_t bytes);
void copy_from_device(void* to, const void* from, std::size_t bytes);
/// Waits for everything launched on `stream`; throws DeviceError for what went wrong there.
void synchronize(Stream stream = nullptr);

/// Host memory that the device reads and writes at its own speed, 256-byte aligned; kernels may use
/// the same address. Throws NoDevice or DeviceError.
[[nodiscard]] void* pinned_allocate(std::size_t bytes);
void pinned_free(void* memory) noexcept;
/// Enqueues a copy between pinned host memory and the device, either way. The host may read `to`
/// and change `from` after synchronize(stream).
void copy_async(void* to, const void* from, std::size_t bytes, Stream stream);

/// A stream that runs beside the others. Throws NoDevice or DeviceError.
[[nodiscard]] Stream create_stream();
void destroy_stream(Stream stream) noexcept;
/// What is launched on `waiting` from now on begins after what was launched on `earlier` so far.
void wait_for(Stream waiting, Stream earlier);

/// An array on the device. Moves, does not copy.
template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::size_t size)
      : size_(size), memory_(static_cast<T*>(device_allocate(size * sizeof(T)))) {}
  explicit DeviceArray(std::span<const T> values) : DeviceArray(values.size()) {
    copy_to_device(memory_.get(), values.data(), values.size_bytes());
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(std::span<const T>(values)) {}

  [[nodiscard]] T* data() const { return memory_.get(); }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::vector<T> to_host() const {
    std::vector<T> values(size_);
    copy_from_device(values.data(), memory_.get(), size_ * sizeof(T));
    return values;
  }

 private:
  struct Free {
    void operator()(T* memory) const { device_free(memory); }
  };
  std::size_t size_ = 0;
  std::unique_ptr<T, Free> memory_;
};

/// An array in pinned host memory. Moves, does not copy.
template <typename T>
class PinnedArray {
 public:
  PinnedArray() = default;
  explicit PinnedArray(std::size_t size)
      : size_(size), memory_(static_cast<T*>(pinned_allocate(size * sizeof(T)))) {}

  [[nodiscard]] T* data() const { return memory_.get(); }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::span<T> span() const { return {memory_.get(), size_}; }

 private:
  struct Free {
    void operator()(T* memory) const { pinned_free(memory); }
  };
  std::size_t size_ = 0;
  std::unique_ptr<T, Free> memory_;
};

/// A stream of one's own, destroyed at the end of the scope.
class ScopedStream {
 public:
  ScopedStream() : stream_(create_stream()) {}
  ScopedStream(const ScopedStream&) = delete;
  ScopedStream& operator=(const ScopedStream&) = delete;
  ~ScopedStream() { destroy_stream(stream_); }

  [[nodiscard]] Stream get() const { return stream_; }

 private:
  Stream stream_;
};

}  // namespace kvfathom::kernels
