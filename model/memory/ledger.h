// The memory ledger: named lines per device, never just a total.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/provenance.h"

namespace kvfathom {

/// What a line of the ledger pays for, in the order in which reports print them.
enum class LedgerKind : std::uint8_t {
  weights,
  cache,
  state,
  extra_weights,
  compute,
  output,
  vision,
  draft,
  lora,
  runtime,
  graphs,
  reserve,
  unaccounted,
};

inline constexpr std::array<std::string_view, 13> kLedgerKindNames{"weights",
                                                                   "cache",
                                                                   "state",
                                                                   "extra_weights",
                                                                   "compute",
                                                                   "output",
                                                                   "vision",
                                                                   "draft",
                                                                   "lora",
                                                                   "runtime",
                                                                   "graphs",
                                                                   "reserve",
                                                                   "unaccounted"};

[[nodiscard]] constexpr std::string_view name(LedgerKind kind) {
  return kLedgerKindNames.at(static_cast<std::size_t>(kind));
}

/// Where bytes live: "gpu0", "gpu1", ... or the host.
struct Device {
  static constexpr int kHost = -1;
  int index = kHost;
  friend auto operator<=>(const Device&, const Device&) = default;
};
[[nodiscard]] inline std::string name(Device device) {
  return device.index == Device::kHost ? "host" : "gpu" + std::to_string(device.index);
}

/// One line. A line that is not exact carries a 90 % interval [low_bytes, high_bytes].
struct LedgerLine {
  Device device;
  LedgerKind kind = LedgerKind::weights;
  std::int64_t bytes = 0;
  Provenance provenance = Provenance::exact;
  std::int64_t low_bytes = 0;  ///< equals bytes where the line is exact
  std::int64_t high_bytes = 0;
};

[[nodiscard]] inline LedgerLine exact_line(Device device, LedgerKind kind, std::int64_t bytes) {
  return {device, kind, bytes, Provenance::exact, bytes, bytes};
}

/// A sum over one device's lines.
struct DeviceTotal {
  std::int64_t bytes = 0;
  std::int64_t high_bytes = 0;
};

/// Lines sorted by device (gpu0.., then host) and kind; no line is zero.
struct MemoryLedger {
  std::vector<LedgerLine> lines;

  [[nodiscard]] DeviceTotal total(Device device) const {
    DeviceTotal sum;
    for (const LedgerLine& line : lines) {
      if (line.device == device) {
        sum.bytes += line.bytes;
        sum.high_bytes += line.high_bytes;
      }
    }
    return sum;
  }
  /// Sum of one kind over all devices.
  [[nodiscard]] std::int64_t bytes_of(LedgerKind kind) const {
    std::int64_t sum = 0;
    for (const LedgerLine& line : lines) {
      sum += line.kind == kind ? line.bytes : 0;
    }
    return sum;
  }
};

}  // namespace kvfathom
