// Scheme `evict-tova`: drops what the newest query weighs least.
#pragma once

#include "model/cache/eviction.h"

namespace kvfathom::cache {

/// TOVA: the weights of the last query, averaged over the heads of a layer, so all heads keep the
/// same tokens. It evicts while decoding.
struct EvictTova {
  static constexpr const char* name = "evict-tova";
  static constexpr const char* formula = "full, of min(tokens, budget) tokens";
  static constexpr const char* summary =
      "Drops what the newest query weighs least, one token a step.";
  static constexpr const char* source = "arXiv 2401.06104";
  static constexpr EvictionParameters kDefaults{.budget = 2048, .window = 1};
  KvRows kv;
  EvictionParameters parameters = kDefaults;
  friend bool operator==(const EvictTova&, const EvictTova&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const EvictTova& s) {
  return evicted(s.kv, s.parameters);
}

}  // namespace kvfathom::cache
