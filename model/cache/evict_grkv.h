// Scheme `evict-grkv`: a budget whose K and V are refined by ridge regression.
#pragma once

#include "model/cache/eviction.h"

namespace kvfathom::cache {

/// GRKV: eviction as SnapKV's, then the kept K and V are edited so that 32 surrogate queries see
/// the output of the whole cache. No memory of its own; cost is extra prefill.
struct EvictGrkv {
  static constexpr const char* name = "evict-grkv";
  static constexpr const char* formula =
      "full, of min(tokens, budget) tokens, and what is generated";
  static constexpr const char* summary =
      "A budget of tokens whose K and V are refined by regression.";
  static constexpr const char* source = "arXiv 2605.31105";
  static constexpr EvictionParameters kDefaults{};
  KvRows kv;
  EvictionParameters parameters = kDefaults;
  friend bool operator==(const EvictGrkv&, const EvictGrkv&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const EvictGrkv& s) {
  return evicted(s.kv, s.parameters);
}

}  // namespace kvfathom::cache
