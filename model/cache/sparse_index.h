// Scheme `sparse-index`: the keys of a lightning indexer, beside the cache that it selects from.
#pragma once

#include "model/cache/layout.h"

namespace kvfathom::cache {

/// One shared key of head_dim per token (DeepSeek-V3.2-Exp report): memory goes up, reads fall.
struct SparseIndex {
  static constexpr const char* name = "sparse-index";
  static constexpr const char* formula = "indexer_head_dim * b_k, beside mla-latent";
  static constexpr const char* summary =
      "Keys of DeepSeek's lightning indexer; reads fall, memory rises.";
  static constexpr const char* source = "DeepSeek-V3.2-Exp report";
  std::int64_t head_dim = 0;
  friend bool operator==(const SparseIndex&, const SparseIndex&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const SparseIndex& s) {
  return {.k_row_elements = s.head_dim};
}

}  // namespace kvfathom::cache
