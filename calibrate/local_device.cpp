#include "calibrate/local_device.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "model/error.h"

namespace kvfathom {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kKiB = 1024;
constexpr std::int64_t kSmallestGpuBytes = 2LL << 30;

/// The first line of a file, without the line end; nothing where it cannot be read.
std::optional<std::string> first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) {
    return std::nullopt;
  }
  return line;
}

/// A whole line as a non-negative decimal number; nothing for "max" and other words.
std::optional<std::int64_t> number_in(const fs::path& path) {
  const std::optional<std::string> line = first_line(path);
  if (!line) {
    return std::nullopt;
  }
  std::int64_t value = 0;
  const char* end = line->data() + line->size();
  const auto [stop, error] = std::from_chars(line->data(), end, value);
  if (error != std::errc() || stop != end || value < 0) {
    return std::nullopt;
  }
  return value;
}

/// The number behind `key` in a file of "key number" or "key: number kB" lines.
std::optional<std::int64_t> keyed_number(const fs::path& path, std::string_view key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with(key)) {
      continue;
    }
    const std::size_t digits = line.find_first_of("0123456789", key.size());
    std::int64_t value = 0;
    if (digits != std::string::npos &&
        std::from_chars(line.data() + digits, line.data() + line.size(), value).ec == std::errc()) {
      return value;
    }
  }
  return std::nullopt;
}

/// The text behind "key<tabs>: " on the first line that starts so.
std::optional<std::string> text_of_key(const fs::path& path, std::string_view key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with(key) && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return std::nullopt;
}

HardwareSpec measured_device(std::string vendor, std::string name, std::string source) {
  HardwareSpec spec;
  spec.vendor = std::move(vendor);
  spec.name = std::move(name);
  spec.id = "local";
  spec.kind = "gpu";
  spec.memory_provenance = Provenance::measured;
  spec.sources["memory_bytes"] = {Provenance::measured, std::move(source)};
  return spec;
}

/// PCI ids to names, in the table that libdrm installs: "744C,\tC8,\tAMD Radeon RX 7900 XTX".
std::optional<std::string> amd_marketing_name(const fs::path& root, const fs::path& device) {
  const std::optional<std::string> id = first_line(device / "device");  // "0x744c"
  const std::optional<std::string> revision = first_line(device / "revision");
  if (!id || !revision || id->size() < 3 || revision->size() < 3) {
    return std::nullopt;
  }
  std::string wanted = id->substr(2) + "," + revision->substr(2) + ",";
  std::transform(wanted.begin(), wanted.end(), wanted.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  std::ifstream file(root / "usr/share/libdrm/amdgpu.ids");
  std::string line;
  while (std::getline(file, line)) {
    std::string squeezed;
    for (const char c : line.substr(0, 16)) {
      if (c != ' ' && c != '\t') {
        squeezed += c;
      }
    }
    const std::size_t last = line.find_last_of(',');
    if (squeezed.starts_with(wanted) && last != std::string::npos) {
      const std::size_t name = line.find_first_not_of(" \t", last + 1);
      return name == std::string::npos ? std::nullopt : std::optional(line.substr(name));
    }
  }
  return std::nullopt;
}

struct HostMemory {
  std::int64_t total_bytes = 0;
  std::int64_t available_bytes = 0;
};

/// Lowers `memory` to one control group's limit. `limit`, `used`: the two files' values.
void apply_limit(HostMemory& memory,
                 const fs::path& group,
                 std::optional<std::int64_t> limit,
                 std::optional<std::int64_t> used) {
  if (!limit || *limit >= memory.total_bytes) {
    return;
  }
  memory.total_bytes = *limit;
  // File cache that the kernel can drop counts as free, as it does in MemAvailable.
  const std::int64_t droppable = keyed_number(group / "memory.stat", "inactive_file ").value_or(0);
  const std::int64_t left = *limit - std::max<std::int64_t>(0, used.value_or(0) - droppable);
  memory.available_bytes = std::clamp<std::int64_t>(left, 0, memory.available_bytes);
}

/// Every limit from this process's control group up to the root (version 2), or version 1's one.
void apply_control_groups(HostMemory& memory, const fs::path& root) {
  const fs::path mount = root / "sys/fs/cgroup";
  std::ifstream membership(root / "proc/self/cgroup");
  std::string line;
  while (std::getline(membership, line)) {
    const bool version2 = line.starts_with("0::/");
    const std::size_t v1 = line.find(":memory:/");
    if (!version2 && v1 == std::string::npos) {
      continue;
    }
    const fs::path base = version2 ? mount : mount / "memory";
    fs::path group = base / line.substr(version2 ? 4 : v1 + 9);
    const char* limit = version2 ? "memory.max" : "memory.limit_in_bytes";
    const char* used = version2 ? "memory.current" : "memory.usage_in_bytes";
    // Inside a container the path may be the host's and absent here; the mount is then the group.
    for (;;) {
      group = group.lexically_normal();
      apply_limit(memory, group, number_in(group / limit), number_in(group / used));
      if (group == base || !group.has_relative_path() || group == group.root_path()) {
        break;
      }
      const fs::path parent = group.parent_path();
      if (parent.string().size() < base.string().size()) {
        break;
      }
      group = parent;
    }
  }
}

}  // namespace

std::vector<HardwareSpec> local_amd_gpus(const LocalSystem& system) {
  std::vector<std::pair<int, HardwareSpec>> cards;
  std::error_code error;
  const fs::path drm = system.root / "sys/class/drm";
  for (fs::directory_iterator entry(drm, error), end; !error && entry != end;
       entry.increment(error)) {
    // card0, card1, ...; not card0-DP-1 (a connector) and not renderD128.
    const std::string name = entry->path().filename().string();
    int index = 0;
    const char* stop = name.data() + name.size();
    if (!name.starts_with("card") || std::from_chars(name.data() + 4, stop, index).ptr != stop ||
        name.size() == 4) {
      continue;
    }
    const fs::path device = entry->path() / "device";
    const std::optional<std::int64_t> total = number_in(device / "mem_info_vram_total");
    const std::optional<std::int64_t> used = number_in(device / "mem_info_vram_used");
    if (first_line(device / "vendor") != "0x1002" || !total || *total < kSmallestGpuBytes) {
      continue;
    }
    std::string product = first_line(device / "product_name").value_or("");
    if (product.empty()) {
      product = amd_marketing_name(system.root, device).value_or("AMD GPU");
    }
    HardwareSpec spec = measured_device("amd", product, "sysfs mem_info_vram_total");
    spec.memory_bytes = *total;
    spec.free_memory_bytes = std::max<std::int64_t>(0, *total - used.value_or(0));
    cards.emplace_back(index, std::move(spec));
  }
  std::sort(
      cards.begin(), cards.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<HardwareSpec> specs;
  specs.reserve(cards.size());
  for (auto& card : cards) {
    specs.push_back(std::move(card.second));
  }
  return specs;
}

HardwareSpec local_host(const LocalSystem& system) {
  const fs::path meminfo = system.root / "proc/meminfo";
  const std::optional<std::int64_t> total = keyed_number(meminfo, "MemTotal:");
  if (!total) {
    throw MachineError(meminfo.string(), "no MemTotal to be read", "");
  }
  // Kernels before 3.14 lack MemAvailable.
  const std::int64_t available = keyed_number(meminfo, "MemAvailable:")
                                     .value_or(keyed_number(meminfo, "MemFree:").value_or(0));
  HostMemory memory{*total * kKiB, std::min(available, *total) * kKiB};
  apply_control_groups(memory, system.root);

  // Intel and AMD name themselves; other architectures leave both lines out.
  const fs::path cpuinfo = system.root / "proc/cpuinfo";
  const std::string vendor_id = text_of_key(cpuinfo, "vendor_id").value_or("");
  const std::string vendor = vendor_id == "GenuineIntel"   ? "intel"
                             : vendor_id == "AuthenticAMD" ? "amd"
                                                           : "";
  HardwareSpec spec = measured_device(vendor,
                                      text_of_key(cpuinfo, "model name").value_or("CPU"),
                                      "/proc/meminfo and the control group's limit");
  spec.kind = "cpu";
  spec.memory_bytes = memory.total_bytes;
  spec.free_memory_bytes = memory.available_bytes;
  spec.unified_memory = true;
  return spec;
}

std::vector<HardwareSpec> local_devices(const LocalSystem& system) {
  std::vector<HardwareSpec> devices = local_nvidia_gpus(system);
  for (HardwareSpec& spec : local_amd_gpus(system)) {
    devices.push_back(std::move(spec));
  }
  if (devices.empty()) {
    devices.push_back(local_host(system));
  }
  return devices;
}

}  // namespace kvfathom
