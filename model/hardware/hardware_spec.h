// What a machine's accelerator is: memory, bandwidth, peak rates, each with its source.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/provenance.h"
#include "model/units.h"

namespace kvfathom {

/// A way out of a device: to the host or to its peers.
struct HardwareLink {
  std::string name;          ///< "PCIe 4.0 x16", "NVLink", "Infinity Fabric"
  BytesPerSecond bandwidth;  ///< one direction, raw link rate
};

/// A price that somebody asked on a day.
struct HardwarePrice {
  double usd_per_hour = 0;
  std::string kind;  ///< "on demand", "spot", ...
  std::string date;  ///< ISO 8601
  std::string source;
};

/// Where one field's value was found and how far to trust it.
struct FieldSource {
  Provenance provenance = Provenance::assumed;
  std::string source;
};

/// One kind of device, as data/hardware/*.json or local discovery describes it.
struct HardwareSpec {
  std::string name;  ///< "NVIDIA GeForce RTX 4090"
  std::string id;    ///< catalog id, "rtx-4090"
  std::vector<std::string> aliases;
  std::string vendor;        ///< "nvidia", "amd", "apple", "intel", "google"; empty if unknown
  std::string architecture;  ///< "ada", "hopper", ...; empty if unknown
  std::string kind;          ///< "gpu", "apu" (graphics on the CPU's memory), "tpu", "cpu"
  std::string chip;          ///< "AD102"; empty if unknown
  std::optional<std::string> compute_capability;  ///< CUDA's, "8.9"

  std::int64_t memory_bytes = 0;  ///< what the driver reports, else the nominal size
  std::optional<std::int64_t> free_memory_bytes;  ///< local discovery only
  /// Where the system keeps part of the memory from the device by default (macOS); else absent.
  std::optional<std::int64_t> usable_memory_bytes;
  /// The host's memory beside this device, where a file of somebody's own machine says it.
  std::optional<std::int64_t> host_memory_bytes;
  Provenance memory_provenance = Provenance::datasheet;
  std::string memory_type;                           ///< "GDDR6X", "HBM3"; empty if unknown
  BytesPerSecond bandwidth;                          ///< peak of the data sheet; 0 if unknown
  std::map<std::string, FlopsPerSecond> peak_rates;  ///< dense, by number format ("bf16")
  bool unified_memory = false;                       ///< device and host share one memory

  std::optional<std::int64_t> l2_bytes;
  std::optional<std::int64_t> last_level_cache_bytes;  ///< beyond L2 (AMD Infinity Cache, MALL)
  std::optional<std::int64_t> n_compute_units;         ///< SMs, CUs, Xe cores, cores
  std::optional<double> boost_clock_hz;
  std::optional<double> tdp_w;
  std::optional<HardwareLink> host_link;  ///< PCIe
  std::optional<HardwareLink> peer_link;  ///< device to device
  std::optional<int> launch_year;
  std::optional<double> launch_price_usd;
  std::vector<HardwarePrice> cloud_prices;
  std::string notes;

  /// Field of the file ("memory_bytes", "peak_flops_per_s.int8") -> where its value was found.
  std::map<std::string, FieldSource> sources;
};

}  // namespace kvfathom
