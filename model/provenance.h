// Where a number comes from, and so how far to trust it.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace kvfathom {

/// Best to worst; the order decides which one a result inherits from what went into it.
enum class Provenance : std::uint8_t {
  exact,             ///< follows from the file and the engine's own rule
  measured,          ///< on this device
  measured_similar,  ///< same device name, another unit or build
  scaled,            ///< another device, by the ratio of ceilings
  published,         ///< with source
  modelled,          ///< a rule of ours that is not exact
  datasheet,
  assumed,  ///< includes what is recalled but not looked up
};

inline constexpr std::array<std::string_view, 8> kProvenanceNames{"exact",
                                                                  "measured",
                                                                  "measured-similar",
                                                                  "scaled",
                                                                  "published",
                                                                  "modelled",
                                                                  "datasheet",
                                                                  "assumed"};

[[nodiscard]] constexpr std::string_view name(Provenance p) {
  return kProvenanceNames.at(static_cast<std::size_t>(p));
}

[[nodiscard]] constexpr Provenance worst(Provenance a, Provenance b) {
  return a < b ? b : a;
}

}  // namespace kvfathom
