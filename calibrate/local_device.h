// The devices of this machine as HardwareSpecs, asked of drivers that may not be there.
//
// Nothing is linked: NVIDIA's management library is opened at run time, AMD's driver and the
// kernel are read through /sys and /proc. What is absent is not an error.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "model/hardware/hardware_spec.h"

namespace kvfathom {

/// Where to look; tests point it at a fake library and a fake tree.
struct LocalSystem {
  std::string nvml_library = "libnvidia-ml.so.1";
  std::filesystem::path root = "/";  ///< /proc, /sys and /usr/share are looked up below it
};

/// NVIDIA GPUs in NVML (PCI bus) order. Empty without a driver or a GPU. A device that shares the
/// host's memory (GB10, Jetson) reports no memory of its own; it gets the host's.
[[nodiscard]] std::vector<HardwareSpec> local_nvidia_gpus(const LocalSystem& system = {});

/// AMD GPUs in card order. Cards with less than 2 GiB of their own are left out: that is the
/// carve-out of a graphics part inside a CPU.
[[nodiscard]] std::vector<HardwareSpec> local_amd_gpus(const LocalSystem& system = {});

/// The CPU and the memory it may use: the machine's, or the control group's limit where that is
/// lower. Throws MachineError where /proc/meminfo cannot be read.
[[nodiscard]] HardwareSpec local_host(const LocalSystem& system = {});

/// What `--gpu local` means: every NVIDIA GPU, then every AMD GPU; the host if there is none.
/// Names, memory, free memory and provenance `measured` are filled in; rates are the catalog's job.
[[nodiscard]] std::vector<HardwareSpec> local_devices(const LocalSystem& system = {});

}  // namespace kvfathom
