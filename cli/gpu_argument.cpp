#include "cli/gpu_argument.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "calibrate/local_device.h"
#include "cli/data_dir.h"
#include "cli/format.h"
#include "cli/values.h"
#include "model/error.h"
#include "model/io/file.h"
#include "model/io/hardware_json.h"
#include "model/text/size.h"

namespace kvfathom::cli {
namespace {

constexpr int kMostGpus = 1024;

std::vector<std::string> split_names(const std::string& text) {
  std::vector<std::string> names;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    if (end > at) {
      names.push_back(text.substr(at, end - at));
    }
    at = end + 1;
  }
  return names;
}

bool is_number(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

/// A number without a unit counts bytes; one so small counts what was meant to be its unit.
std::int64_t memory_size(const std::string& text, const char* option) {
  constexpr std::int64_t kLeastBytes = std::int64_t{1} << 20;
  constexpr std::int64_t kMostGiB = 4096;
  const std::int64_t bytes = parse_size(text, option);
  const bool is_bare = text.find_first_not_of("0123456789. ") == std::string::npos;
  const bool is_zero = text.find_first_of("123456789") == std::string::npos;
  if (is_bare && !is_zero && bytes < kLeastBytes) {
    throw InputError(option,
                     "'" + printable(text) + "' is " + std::to_string(bytes) + " bytes",
                     "give a unit: " + text + (bytes < kMostGiB ? "GiB" : "MiB") + "?");
  }
  return bytes;
}

HardwareSpec device_named(const std::string& name) {
  if (is_regular_file(name) || name.ends_with(".json")) {
    return read_hardware(name);
  }
  return find_hardware(data_directory(), name);
}

HardwareSpec device_of_size(const GpuOptions& options) {
  HardwareSpec device;
  device.memory_bytes = memory_size(*options.memory, "--memory");
  device.name = gib(device.memory_bytes) + " of memory";
  device.memory_provenance = Provenance::exact;
  if (options.bandwidth) {
    device.bandwidth = parse_bandwidth(*options.bandwidth, "--bandwidth");
  }
  return device;
}

/// The devices that the options name, before `--gpus N` multiplies them.
std::vector<HardwareSpec> named_devices(const GpuOptions& options) {
  const bool names_in_gpus = options.gpus && !is_number(*options.gpus);
  if ((options.gpu || names_in_gpus) && options.memory) {
    throw InputError("--memory", "given together with --gpu", "give one of them");
  }
  if (options.memory) {
    return {device_of_size(options)};
  }
  std::vector<HardwareSpec> devices;
  const Text& text = names_in_gpus ? options.gpus : options.gpu;
  for (const std::string& name : text ? split_names(*text) : std::vector<std::string>{}) {
    if (lower(name) == "local") {
      for (HardwareSpec& device : local_devices()) {
        devices.push_back(std::move(device));
      }
    } else {
      devices.push_back(device_named(name));
    }
  }
  if (text && devices.empty()) {
    throw InputError("--gpu", "no name given", "a catalog name, 'local' or a hardware JSON file");
  }
  return devices;
}

void multiply(std::vector<HardwareSpec>& devices, std::int64_t count) {
  if (devices.size() == 1) {
    devices.resize(static_cast<std::size_t>(std::max<std::int64_t>(count, 1)), devices.front());
  } else if (devices.size() > static_cast<std::size_t>(count) && count > 0) {
    devices.resize(static_cast<std::size_t>(count));  // the first of this machine's GPUs
  } else if (!devices.empty() && devices.size() < static_cast<std::size_t>(count)) {
    throw InputError("--gpus",
                     std::to_string(count) + " of " + std::to_string(devices.size()) + " devices",
                     "0 to " + std::to_string(devices.size()));
  }
}

std::string name_of(const std::vector<HardwareSpec>& devices) {
  std::string text;
  for (std::size_t i = 0; i < devices.size();) {
    std::size_t same = i;
    while (same < devices.size() && devices[same].name == devices[i].name) {
      ++same;
    }
    text += i == 0 ? "" : " + ";
    text += same - i > 1 ? std::to_string(same - i) + " x " : "";
    text += devices[i].name;
    i = same;
  }
  return text;
}

/// What is free, or what the system lets a GPU have of a memory that it shares with the host.
std::int64_t capacity_of(const HardwareSpec& device, bool host_only) {
  const std::int64_t whole =
      host_only ? device.memory_bytes : device.usable_memory_bytes.value_or(device.memory_bytes);
  return device.free_memory_bytes.value_or(whole);
}

/// The whole of a memory of which the system lets the GPU have a part.
void add_shared_memory(Machine& machine) {
  if (!machine.host_shares_memory) {
    return;
  }
  const HardwareSpec& device = machine.devices.front();
  if (device.memory_bytes > machine.capacities.front().bytes && !device.free_memory_bytes) {
    machine.capacities.push_back({Device{Device::kHost}, device.memory_bytes, true});
  }
}

/// What follows from the devices of a machine: its name and what each of them may be filled to.
void describe_devices(Machine& machine) {
  const bool host_only = machine.n_gpus == 0;
  machine.name = name_of(machine.devices);
  for (std::size_t i = 0; i < machine.devices.size(); ++i) {
    const HardwareSpec& device = machine.devices[i];
    const Device place{host_only ? Device::kHost : static_cast<int>(i)};
    machine.capacities.push_back({place, capacity_of(device, host_only)});
    machine.host_shares_memory =
        machine.host_shares_memory || (!host_only && device.unified_memory);
  }
  add_shared_memory(machine);
}

/// The host as a second capacity, where it is known and not the GPU's own memory.
void add_host(const GpuOptions& options, Machine& machine) {
  const bool local = options.gpu && lower(*options.gpu) == "local";
  std::optional<std::int64_t> bytes;
  if (options.host_memory) {
    bytes = memory_size(*options.host_memory, "--host-memory");
    if (machine.devices.empty()) {
      throw InputError("--host-memory", "given without a GPU", "give --gpu NAME or --memory SIZE");
    }
    if (machine.n_gpus == 0 || machine.host_shares_memory) {
      throw InputError("--host-memory",
                       "given, but " + (machine.n_gpus == 0 ? std::string("there is no GPU")
                                                            : machine.name + " shares the host's"),
                       "leave it out");
    }
  } else if (machine.n_gpus > 0 && !machine.host_shares_memory && !machine.devices.empty()) {
    bytes = machine.devices.front().host_memory_bytes;
    if (!bytes && local) {
      const HardwareSpec host = local_host();
      bytes = host.free_memory_bytes.value_or(host.memory_bytes);
    }
  }
  if (bytes) {
    machine.capacities.push_back({Device{Device::kHost}, *bytes});
  }
}

}  // namespace

MachineRules Machine::rules() const {
  MachineRules rules;
  rules.reserve_bytes = reserve_bytes;
  rules.host_shares_memory = host_shares_memory && !is_gpu_limited();
  for (const Capacity& capacity : capacities) {
    if (n_gpus == 0 || capacity.device.index != Device::kHost) {
      rules.devices.push_back(capacity.device);
    }
  }
  return rules;
}

std::vector<std::int64_t> Machine::uneven_memory() const {
  std::vector<std::int64_t> memory;
  for (const Capacity& capacity : capacities) {
    if (capacity.device.index != Device::kHost) {
      memory.push_back(capacity.bytes);
    }
  }
  const bool even =
      std::adjacent_find(memory.begin(), memory.end(), std::not_equal_to<>()) == memory.end();
  return even ? std::vector<std::int64_t>{} : memory;
}

Machine read_machine(const GpuOptions& options) {
  Machine machine;
  machine.devices = named_devices(options);
  const bool counted = options.gpus && is_number(*options.gpus);
  const std::int64_t count = counted ? parse_count("--gpus", *options.gpus, 0, kMostGpus) : 0;
  if (counted && count > 0) {
    multiply(machine.devices, count);
  }
  if (options.bandwidth && !options.memory) {
    throw InputError("--bandwidth", "given without --memory", "a GPU by name has its own");
  }
  if (options.reserve) {
    machine.reserve_bytes = memory_size(*options.reserve, "--reserve");
  }
  const bool host_only = (counted && count == 0) ||
                         (!machine.devices.empty() && machine.devices.front().vendor == "cpu");
  machine.n_gpus =
      host_only ? 0 : static_cast<int>(std::max<std::size_t>(machine.devices.size(), 1));
  if (counted && machine.devices.empty() && count > 0) {
    machine.n_gpus = static_cast<int>(count);
  }
  describe_devices(machine);
  add_host(options, machine);
  if (options.host_bandwidth) {
    machine.host.emplace();
    machine.host->name = "host";
    machine.host->bandwidth = parse_bandwidth(*options.host_bandwidth, "--host-bandwidth");
  }
  return machine;
}

Machine machine_of(const HardwareSpec& device, int n_gpus) {
  Machine machine;
  machine.devices.assign(static_cast<std::size_t>(n_gpus), device);
  machine.n_gpus = n_gpus;
  describe_devices(machine);
  return machine;
}

}  // namespace kvfathom::cli
