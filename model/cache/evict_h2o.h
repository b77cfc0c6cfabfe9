// Scheme `evict-h2o`: heavy hitters by accumulated attention, and recent tokens.
#pragma once

#include "model/cache/eviction.h"

namespace kvfathom::cache {

/// H2O: half of the budget heavy hitters, half recent tokens, and an f32 score for each kept token
/// and KV head. It evicts while decoding and needs the probabilities of every step.
struct EvictH2o {
  static constexpr const char* name = "evict-h2o";
  static constexpr const char* formula =
      "full, of min(tokens, budget) tokens, and an f32 score each";
  static constexpr const char* summary =
      "Heavy hitters by accumulated attention, and recent tokens.";
  static constexpr const char* source = "arXiv 2306.14048";
  static constexpr EvictionParameters kDefaults{.budget = 2048, .window = 1024};
  KvRows kv;
  EvictionParameters parameters = kDefaults;
  friend bool operator==(const EvictH2o&, const EvictH2o&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const EvictH2o& s) {
  CacheLayout result = evicted(s.kv, s.parameters);
  result.k_packed_bits = 32 * s.kv.n_kv_heads;
  return result;
}

}  // namespace kvfathom::cache
