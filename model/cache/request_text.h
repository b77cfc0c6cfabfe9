// Schemes as people write them: `id:key=value,...` and `A+offload:...`.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/cache/scheme.h"

namespace kvfathom::cache {

/// A scheme and what of it is elsewhere.
struct ParsedScheme {
  SchemeRequest request;
  std::optional<Offload> offload = std::nullopt;
  friend bool operator==(const ParsedScheme&, const ParsedScheme&) = default;
};

/// Reads `kivi:bits=2,group=32`, `offload:kept=0.5`, `kivi+offload:tier=nvme`; case does not
/// matter. InputError names the key or value and what is allowed.
[[nodiscard]] ParsedScheme parse_scheme(std::string_view text);

enum class Spelling : std::uint8_t { changed, every };

/// The scheme as it would be typed: with the parameters that are not the defaults, or with all.
[[nodiscard]] std::string spelled(const SchemeRequest& request,
                                  const std::optional<Offload>& offload = std::nullopt,
                                  Spelling spelling = Spelling::changed);

/// Every parameter that is a number, by name and in the unit of the command line.
[[nodiscard]] std::vector<std::pair<std::string, double>> numbers_of(const SchemeRequest& request);

/// "bits=2 (2 to 8), group=32 (8 to 1024)": the keys, defaults and ranges of a scheme.
[[nodiscard]] std::string parameter_help(CacheScheme scheme);

}  // namespace kvfathom::cache
