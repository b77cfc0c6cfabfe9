// Sizes and bandwidths as people write and read them: "24GiB", "1008GB/s".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "model/units.h"

namespace kvfathom {

/// The bytes that `text` says. A decimal number (at least one digit, at most one point, no sign,
/// no exponent) and a unit, spaces between them allowed, case free:
///   none, B                          bytes
///   KiB MiB GiB TiB PiB              powers of 1024
///   kB MB GB TB PB                   powers of 1000, as data sheets and disks count
///   K M G T P                        powers of 1024, as llama.cpp, docker and ulimit count
/// So "80GB" is 80000000000, "80GiB" and "80G" are 85899345920. A fraction is exact where it names
/// whole bytes and is rounded down otherwise. Throws InputError, with `where` as its place, for
/// anything else and for what does not fit in 63 bits.
[[nodiscard]] std::int64_t parse_size(std::string_view text, std::string_view where);

/// The same with "/s" behind the unit, which must be there: "1008GB/s", "3.35 TB/s".
[[nodiscard]] BytesPerSecond parse_bandwidth(std::string_view text, std::string_view where);

/// For people, always binary, three or more significant digits: "0 B", "1023 B", "1.50 KiB",
/// "19.1 GiB", "1023 MiB". Negative sizes (a shortfall) carry the sign.
[[nodiscard]] std::string human_size(std::int64_t bytes);

}  // namespace kvfathom
