// Scheme `evict-streaming`: the first tokens and the last.
#pragma once

#include "model/cache/eviction.h"

namespace kvfathom::cache {

/// StreamingLLM (its code: 4 sinks and 512 recent tokens): budget - window tokens are sinks. The
/// choice needs no scores, so a prompt never holds more than the budget.
struct EvictStreaming {
  static constexpr const char* name = "evict-streaming";
  static constexpr const char* formula = "full, of min(tokens, budget) tokens";
  static constexpr const char* summary = "The first tokens and the last; nothing between.";
  static constexpr const char* source = "arXiv 2309.17453";
  static constexpr EvictionParameters kDefaults{
      .budget = 516, .window = 512, .prefill = EvictionParameters::kStreamed};
  KvRows kv;
  EvictionParameters parameters = kDefaults;
  friend bool operator==(const EvictStreaming&, const EvictStreaming&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const EvictStreaming& s) {
  return evicted(s.kv, s.parameters);
}

}  // namespace kvfathom::cache
