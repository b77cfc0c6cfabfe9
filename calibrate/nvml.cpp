// NVIDIA's management library, opened at run time. The declarations below are its published C
// interface (nvml.h, stable since version 2 of the functions, driver 285 on).
#include <array>
#include <cstdint>
#include <memory>

#include <dlfcn.h>

#include "calibrate/local_device.h"

namespace kvfathom {
namespace {

constexpr int kNvmlSuccess = 0;
constexpr int kNvmlNotSupported = 3;

/// nvmlMemory_t.
struct NvmlMemory {
  unsigned long long total = 0;
  unsigned long long free = 0;
  unsigned long long used = 0;  ///< includes what the driver reserves
};

/// nvmlDevice_t: a handle that is never followed.
using NvmlDevice = void*;

struct CloseLibrary {
  void operator()(void* library) const { (void)dlclose(library); }
};

/// The functions used; all present, or the library is treated as absent.
struct Nvml {
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*count)(unsigned*) = nullptr;
  int (*handle)(unsigned, NvmlDevice*) = nullptr;
  int (*name)(NvmlDevice, char*, unsigned) = nullptr;
  int (*memory)(NvmlDevice, NvmlMemory*) = nullptr;
  int (*capability)(NvmlDevice, int*, int*) = nullptr;
};

template <typename Function>
bool load(void* library, const char* symbol, Function& function) {
  // POSIX defines the conversion of dlsym's result to a function; C++ leaves it to the platform.
  function = reinterpret_cast<Function>(dlsym(library, symbol));
  return function != nullptr;
}

bool load_all(void* library, Nvml& nvml) {
  return load(library, "nvmlInit_v2", nvml.init) && load(library, "nvmlShutdown", nvml.shutdown) &&
         load(library, "nvmlDeviceGetCount_v2", nvml.count) &&
         load(library, "nvmlDeviceGetHandleByIndex_v2", nvml.handle) &&
         load(library, "nvmlDeviceGetName", nvml.name) &&
         load(library, "nvmlDeviceGetMemoryInfo", nvml.memory) &&
         load(library, "nvmlDeviceGetCudaComputeCapability", nvml.capability);
}

/// One device; false where the driver lost it (a GPU that fell off the bus) or it has no memory.
bool describe(const Nvml& nvml, unsigned index, const LocalSystem& system, HardwareSpec& spec) {
  NvmlDevice device = nullptr;
  std::array<char, 96> name{};  // NVML_DEVICE_NAME_V2_BUFFER_SIZE
  if (nvml.handle(index, &device) != kNvmlSuccess ||
      nvml.name(device, name.data(), name.size()) != kNvmlSuccess) {
    return false;
  }
  name.back() = '\0';
  spec.name = name.data();
  spec.id = "local";
  spec.vendor = "nvidia";
  spec.kind = "gpu";
  int major = 0;
  int minor = 0;
  if (nvml.capability(device, &major, &minor) == kNvmlSuccess) {
    spec.compute_capability = std::to_string(major) + "." + std::to_string(minor);
  }
  NvmlMemory memory;
  const int result = nvml.memory(device, &memory);
  std::string source = "NVML nvmlDeviceGetMemoryInfo";
  if (result == kNvmlSuccess) {
    spec.memory_bytes = static_cast<std::int64_t>(memory.total);
    spec.free_memory_bytes = static_cast<std::int64_t>(memory.free);
  } else if (result == kNvmlNotSupported) {
    const HardwareSpec host = local_host(system);
    spec.memory_bytes = host.memory_bytes;
    spec.free_memory_bytes = host.free_memory_bytes;
    spec.unified_memory = true;
    source = host.sources.at("memory_bytes").source;
  } else {
    return false;
  }
  spec.memory_provenance = Provenance::measured;
  spec.sources["memory_bytes"] = {Provenance::measured, source};
  return true;
}

}  // namespace

std::vector<HardwareSpec> local_nvidia_gpus(const LocalSystem& system) {
  std::vector<HardwareSpec> specs;
  const std::unique_ptr<void, CloseLibrary> library(
      dlopen(system.nvml_library.c_str(), RTLD_NOW | RTLD_LOCAL));
  Nvml nvml;
  if (!library || !load_all(library.get(), nvml) || nvml.init() != kNvmlSuccess) {
    return specs;
  }
  unsigned count = 0;
  if (nvml.count(&count) == kNvmlSuccess) {
    for (unsigned index = 0; index < count; ++index) {
      HardwareSpec spec;
      if (describe(nvml, index, system, spec)) {
        specs.push_back(std::move(spec));
      }
    }
  }
  (void)nvml.shutdown();
  return specs;
}

}  // namespace kvfathom
