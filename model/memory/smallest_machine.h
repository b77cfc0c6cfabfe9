// Inverse of the ledger over machines: which is the smallest that holds it?
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/units.h"

namespace kvfathom {

/// A number of equal devices, and whether what is asked for fits on them.
struct MachineOffer {
  std::int64_t bytes = 0;  ///< usable, of all devices together
  std::int64_t n_devices = 1;
  BytesPerSecond bandwidth = {};  ///< of one device
  std::string name;
  bool fits = false;
};

/// Less memory in all first; of equals fewer devices, then the faster memory, then the name.
[[nodiscard]] bool is_smaller(const MachineOffer& a, const MachineOffer& b);

/// Indices into the offers.
struct SmallestMachine {
  std::optional<std::size_t> below;  ///< the largest of the smaller ones, none of which fits
  std::optional<std::size_t> smallest;
  std::vector<std::size_t> next;  ///< the next larger ones that fit, in order
  /// The smallest of every number of devices that has one, fewest devices first.
  std::vector<std::size_t> by_count;
};

/// Looks at every offer, since more memory need not fit more: a model is cut differently over
/// more devices. Where nothing fits, `below` is the largest offer.
[[nodiscard]] SmallestMachine smallest_machine(std::span<const MachineOffer> offers,
                                               std::size_t n_next);

}  // namespace kvfathom
