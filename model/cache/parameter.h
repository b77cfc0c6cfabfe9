// How a scheme's parameters are spelled on the command line: `id:key=value,...`.
#pragma once

#include <cstdint>
#include <span>

namespace kvfathom::cache {

/// A word that stands for a value ("all").
struct Word {
  const char* word = "";
  std::int64_t value = 0;
};

/// Shares are kept in thousandths, so that all arithmetic stays whole.
inline constexpr std::int64_t kWhole = 1000;

/// One key of a struct of parameters. A key takes numbers in [low, high], one of its words, or
/// either; a share is written as a decimal fraction.
template <class P>
struct Key {
  const char* name = "";
  std::int64_t P::*value = nullptr;
  std::int64_t low = 0;
  std::int64_t high = -1;  ///< below low: words only
  std::span<const Word> words = {};
  bool is_share = false;
};

}  // namespace kvfathom::cache
