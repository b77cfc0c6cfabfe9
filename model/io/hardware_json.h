// Hardware files (data/hardware/*.json, or a user's own) and the catalog they make.
//
// A file is one device: "schema": "kvfathom.hardware/1", "name" and "memory_bytes", and any of the
// fields of HardwareSpec with the unit in the name (bandwidth_bytes_per_s, peak_flops_per_s,
// l2_bytes, boost_clock_hz, tdp_w, ...). "sources" says for groups of fields where the values were
// found and how far to trust them; "recalled" (from memory, not looked up) counts as `assumed`. The
// name of the file is the device's id. A field that is not known is refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/hardware/hardware_spec.h"

namespace kvfathom {

/// Reads one file. Throws InputError naming file, field, value and what is allowed.
[[nodiscard]] HardwareSpec read_hardware(const std::filesystem::path& path);

/// The catalog's device for a name as people and drivers write it: id or alias, with or without the
/// vendor, any case, any separators ("rtx-4090", "4090", "NVIDIA GeForce RTX 4090", "a100 80gb").
/// Part of a name will do where only one device has it. Throws InputError: the candidates where
/// several match, the nearest three where none does. `data`: the data directory.
[[nodiscard]] HardwareSpec find_hardware(const std::filesystem::path& data, std::string_view name);

/// The catalog's device for the name that a driver reported, nearest in memory where one name
/// covers two sizes (RTX 4060 Ti); nothing where no device has exactly that name.
[[nodiscard]] std::optional<HardwareSpec> match_hardware(const std::filesystem::path& data,
                                                         std::string_view driver_name,
                                                         std::int64_t memory_bytes);

/// Every device, sorted by id.
[[nodiscard]] std::vector<HardwareSpec> list_hardware(const std::filesystem::path& data);

}  // namespace kvfathom
