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

/// One kind of device, as data/hardware/*.json or local discovery describes it.
struct HardwareSpec {
  std::string name;  ///< "NVIDIA GeForce RTX 4090"
  std::string id;    ///< catalog id, "rtx-4090"
  std::vector<std::string> aliases;
  std::string vendor;             ///< "nvidia", "amd", "apple", "intel", "google", "cpu"
  std::string architecture;       ///< "ada", "hopper", ...; empty if unknown
  std::int64_t memory_bytes = 0;  ///< what the driver reports, else the nominal size
  std::optional<std::int64_t> free_memory_bytes;  ///< local discovery only
  Provenance memory_provenance = Provenance::datasheet;
  BytesPerSecond bandwidth;                          ///< peak of the data sheet
  std::map<std::string, FlopsPerSecond> peak_rates;  ///< dense, by number format ("bf16")
  bool unified_memory = false;                       ///< device and host share one memory
  std::map<std::string, std::string> sources;        ///< field -> where its value was found
};

}  // namespace kvfathom
