// Option text to numbers, each refusal in one form: option, value, what is allowed.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "cli/options.h"
#include "model/dtype.h"
#include "model/engine/settings.h"

namespace kvfathom::cli {

/// A whole number in [low, high]; "200000", "200,000" and "200_000" are the same.
[[nodiscard]] std::int64_t parse_count(
    const std::string& option,
    const std::string& text,
    std::int64_t low,
    std::int64_t high = std::numeric_limits<std::int64_t>::max());

/// A number in [0, most].
[[nodiscard]] double parse_share(const std::string& option, const std::string& text, double most);

[[nodiscard]] bool parse_on_off(const std::string& option, const std::string& text);
[[nodiscard]] FlashAttention parse_flash_attention(const std::string& text);

/// An element type that some engine's cache may have; "fp8" is f8_e4m3.
[[nodiscard]] DType parse_cache_type(const std::string& option, const std::string& text);

/// The engine-independent part of the settings: everything but context and scheme.
[[nodiscard]] EngineSettings settings_of(const EngineOptions& options);

}  // namespace kvfathom::cli
