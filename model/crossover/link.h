// How long bytes take to come from a slower tier.
#pragma once

#include <cstdint>

#include "model/units.h"

namespace kvfathom {

/// Where cached state lives that is not in the device's memory.
enum class Tier : std::uint8_t { host, nvme, network };

/// Of a link that moves a prefix by one call: more than any has.
inline constexpr Bytes kWholePrefix{1e18};

/// A way in. Bytes come in pieces, each with a call of its own before it flows: 32 KiB pieces over
/// PCIe 4.0 with 10 us a call reach a tenth of what 2 MiB pieces do.
struct Link {
  BytesPerSecond bandwidth;
  Seconds call;                    ///< until a piece flows
  Bytes piece{2.0 * 1024 * 1024};  ///< bytes moved by one call
};

/// ceil(size / piece) calls and the bytes behind them; nothing for nothing.
[[nodiscard]] Seconds transfer_time(const Link& link, Bytes size);

/// The bandwidth at which `size` takes `time`; nothing is fast enough where the calls alone take
/// longer: then 0.
[[nodiscard]] BytesPerSecond bandwidth_for(const Link& link, Bytes size, Seconds time);

}  // namespace kvfathom
