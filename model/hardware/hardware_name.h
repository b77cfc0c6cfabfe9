// Names of devices as people, shops and drivers write them, brought to one spelling.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvfathom {

/// The words of a name: lower case, split at anything but letters, digits and points, "+" as the
/// word "plus", a size as one word ("16 GB" -> "16gb"), without vendors and brands (nvidia,
/// geforce, rtx, rx, radeon, instinct, ...) unless nothing else is left.
[[nodiscard]] std::vector<std::string> hardware_words(std::string_view name);

/// Case and separators evened out, brands kept: "NVIDIA RTX_4090" -> "nvidia-rtx-4090".
[[nodiscard]] std::string hardware_slug(std::string_view name);

/// The words run together: equal for all spellings of one name ("RTX 4090", "rtx4090", "4090").
[[nodiscard]] std::string hardware_key(std::string_view name);

/// The fewest insertions, deletions and replacements of one character, and swaps of two neighbours,
/// that turn `a` into `b`, no character touched twice (optimal string alignment).
[[nodiscard]] std::size_t edit_distance(std::string_view a, std::string_view b);

}  // namespace kvfathom
