// Scheme `evict-snapkv`: what the prompt's last queries attend to.
#pragma once

#include "model/cache/eviction.h"

namespace kvfathom::cache {

/// SnapKV (its defaults: 2048 tokens, a window of 32 queries): chosen once, behind the prompt; what
/// is generated comes on top.
struct EvictSnapKv {
  static constexpr const char* name = "evict-snapkv";
  static constexpr const char* formula =
      "full, of min(tokens, budget) tokens, and what is generated";
  static constexpr const char* summary =
      "What the prompt's last queries attend to, pooled; then grows.";
  static constexpr const char* source = "arXiv 2404.14469";
  static constexpr EvictionParameters kDefaults{};
  KvRows kv;
  EvictionParameters parameters = kDefaults;
  friend bool operator==(const EvictSnapKv&, const EvictSnapKv&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const EvictSnapKv& s) {
  return evicted(s.kv, s.parameters);
}

}  // namespace kvfathom::cache
