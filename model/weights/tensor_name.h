// What a GGUF tensor name says about its place.
#pragma once

#include <charconv>
#include <cstdint>
#include <string_view>

namespace kvfathom {

inline constexpr std::int64_t kNoBlock = -1;

/// The number behind "blk.", or kNoBlock.
[[nodiscard]] inline std::int64_t block_of(std::string_view name) {
  constexpr std::string_view kPrefix = "blk.";
  std::int64_t block = kNoBlock;
  if (name.starts_with(kPrefix)) {
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), block);
  }
  return block;
}

}  // namespace kvfathom
