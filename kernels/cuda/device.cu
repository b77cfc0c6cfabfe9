// The CUDA device behind kernels/common/device.h.
#include <array>
#include <string>

#include <cuda_runtime.h>

#include "kernels/common/device.h"
#include "kernels/common/error.h"
#include "kernels/simt/emulator_control.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {
namespace {

void check(cudaError_t status, const std::string& what) {
  if (status != cudaSuccess) {
    throw DeviceError(what + ": " + cudaGetErrorString(status));
  }
}

int attribute(cudaDeviceAttr which) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, 0), "cudaDeviceGetAttribute");
  return value;
}

DeviceInfo query_device() {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  return DeviceInfo{
      .name = properties.name,
      .emulated = false,
      .compute_capability = 10 * properties.major + properties.minor,
      .n_multiprocessors = properties.multiProcessorCount,
      .shared_bytes_per_block = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
      .l2_bytes = properties.l2CacheSize,
      .memory_bytes = static_cast<std::int64_t>(properties.totalGlobalMem),
  };
}

}  // namespace

std::string device_missing() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    return std::string("no CUDA device: ") + cudaGetErrorString(status);
  }
  return count > 0 ? "" : "no CUDA device: the driver lists none";
}

const DeviceInfo& device() {
  const std::string missing = device_missing();
  if (!missing.empty()) {
    throw NoDevice(missing);
  }
  static const DeviceInfo info = query_device();
  return info;
}

void* device_allocate(std::size_t bytes) {
  static_cast<void>(device());
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes > 0 ? bytes : 1),
        "cudaMalloc of " + std::to_string(bytes) + " bytes");
  return memory;
}
void device_free(void* memory) noexcept {
  static_cast<void>(cudaFree(memory));
}
void copy_to_device(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "copy to the device");
}
void copy_from_device(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "copy from the device");
}
void synchronize(Stream stream) {
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
}

void* pinned_allocate(std::size_t bytes) {
  static_cast<void>(device());
  void* memory = nullptr;
  check(cudaHostAlloc(&memory, bytes > 0 ? bytes : 1, cudaHostAllocDefault),
        "cudaHostAlloc of " + std::to_string(bytes) + " bytes");
  return memory;
}
void pinned_free(void* memory) noexcept {
  static_cast<void>(cudaFreeHost(memory));
}
void copy_async(void* to, const void* from, std::size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), "cudaMemcpyAsync");
}
Stream create_stream() {
  static_cast<void>(device());
  Stream stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  return stream;
}
void destroy_stream(Stream stream) noexcept {
  static_cast<void>(cudaStreamDestroy(stream));
}
void wait_for(Stream waiting, Stream earlier) {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  const cudaError_t recorded = cudaEventRecord(event, earlier);
  const cudaError_t waited =
      recorded == cudaSuccess ? cudaStreamWaitEvent(waiting, event) : recorded;
  static_cast<void>(cudaEventDestroy(event));
  check(waited, "a stream that waits for another");
}

namespace simt {

void check_launch(const char* what) {
  check(cudaGetLastError(), what);
}
void allow_shared_bytes(const void* kernel, std::size_t shared_bytes) {
  check(cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
        "a kernel that needs " + std::to_string(shared_bytes) + " bytes of shared memory");
}

void set_schedule(const Schedule&) {}
std::optional<Traffic> take_traffic() {
  return std::nullopt;
}
void set_emulated_device(std::optional<DeviceInfo>) {}
std::vector<SyncSite> take_sync_sites() {
  return {};
}
void skip_sync(std::optional<SyncSite>) {}

}  // namespace simt
}  // namespace kvfathom::kernels
