// Scheme `offload`: any other scheme with a share of its K and V in a slower tier.
#pragma once

#include <array>
#include <cstdint>

#include "model/cache/parameter.h"

namespace kvfathom::cache {

/// Composes with every scheme (`kivi:bits=4+offload:tier=host,kept=0.25`), so it wraps their bytes
/// instead of being one of them. What is elsewhere is read through two buffers of `chunk` tokens of
/// one layer, so that a copy hides behind the attention over the chunk before (FlexGen,
/// arXiv 2303.06865). States are read and written whole at every step and stay.
struct Offload {
  static constexpr const char* name = "offload";
  static constexpr const char* formula = "kept * the bytes of the scheme that it wraps";
  static constexpr const char* summary = "A share of any scheme's K and V in a slower tier.";
  static constexpr const char* source = "arXiv 2303.06865";
  static constexpr std::int64_t kHost = 0;
  static constexpr std::int64_t kNvme = 1;
  static constexpr std::int64_t kNetwork = 2;
  static constexpr std::array<Word, 3> kTiers{
      {{"host", kHost}, {"nvme", kNvme}, {"network", kNetwork}}};

  std::int64_t tier = kHost;
  std::int64_t kept = kWhole / 4;  ///< share that stays with the device, in thousandths
  std::int64_t chunk = 1024;       ///< tokens fetched at a time
  friend bool operator==(const Offload&, const Offload&) = default;

  static constexpr std::array<Key<Offload>, 3> keys() {
    return {{{"tier", &Offload::tier, 0, -1, kTiers},
             {"kept", &Offload::kept, 0, kWhole, {}, true},
             {"chunk", &Offload::chunk, 1, 1 << 20}}};
  }
  [[nodiscard]] constexpr const char* tier_name() const {
    return kTiers.at(static_cast<std::size_t>(tier)).word;
  }
  /// Bytes that leave the device, of `bytes`.
  [[nodiscard]] constexpr std::int64_t away(std::int64_t bytes) const {
    return bytes / kWhole * (kWhole - kept) + bytes % kWhole * (kWhole - kept) / kWhole;
  }
};

}  // namespace kvfathom::cache
