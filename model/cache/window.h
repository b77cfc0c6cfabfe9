// Scheme `window`: K and V of the last window_tokens tokens.
#pragma once

#include "model/cache/full.h"

namespace kvfathom::cache {

/// Sliding-window or chunked attention (Mistral, Gemma, gpt-oss): what falls out of the window is
/// never read again.
struct Window {
  static constexpr const char* name = "window";
  static constexpr const char* formula = "full, of min(tokens, window) tokens";
  static constexpr const char* summary =
      "K and V of the last tokens only (sliding or chunked windows).";
  static constexpr const char* source = "arXiv 2310.06825";
  Full kv;
  std::int64_t window_tokens = 0;
  friend bool operator==(const Window&, const Window&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const Window& s) {
  CacheLayout result = layout(s.kv);
  result.token_cap = s.window_tokens;
  return result;
}

}  // namespace kvfathom::cache
