// What the schemes `evict-...` have in common: a budget of tokens, and when it is met.
#pragma once

#include <algorithm>
#include <array>

#include "model/cache/kv_rows.h"
#include "model/cache/parameter.h"

namespace kvfathom::cache {

/// The budget of SnapKV's configuration is the default of all that name none: H2O and TOVA state
/// shares of the context.
struct EvictionParameters {
  static constexpr auto kStreamed = static_cast<std::int64_t>(Prefill::streamed);
  static constexpr auto kLayerwise = static_cast<std::int64_t>(Prefill::layerwise);
  static constexpr auto kWholePrompt = static_cast<std::int64_t>(Prefill::whole);
  static constexpr std::array<Word, 3> kPrefills{
      {{"whole", kWholePrompt}, {"layerwise", kLayerwise}, {"streamed", kStreamed}}};

  std::int64_t budget = 2048;  ///< tokens kept per KV head, the window among them
  std::int64_t window = 32;    ///< newest tokens that are always kept
  std::int64_t generated = 0;  ///< tokens added behind the prompt's budget
  std::int64_t prefill = kWholePrompt;
  friend bool operator==(const EvictionParameters&, const EvictionParameters&) = default;

  static constexpr std::array<Key<EvictionParameters>, 4> keys() {
    using P = EvictionParameters;
    return {{{"budget", &P::budget, 1, 1 << 24},
             {"window", &P::window, 0, 1 << 24},
             {"generated", &P::generated, 0, 1 << 24},
             {"prefill", &P::prefill, 0, -1, kPrefills}}};
  }
};

/// K and V of at most `budget` tokens; a window of the model's own may be the tighter bound.
[[nodiscard]] constexpr CacheLayout evicted(const KvRows& kv, const EvictionParameters& p) {
  CacheLayout result = layout(kv);
  const std::int64_t kept = p.budget + p.generated;
  if (!result.token_cap || kept < *result.token_cap) {
    result.prompt_token_cap = result.token_cap;
    result.token_cap = kept;
    result.prefill = static_cast<Prefill>(p.prefill);
  }
  return result;
}

}  // namespace kvfathom::cache
