// Scheme `mla-latent`: the V-less cache of multi-head latent attention.
#pragma once

#include "model/cache/layout.h"

namespace kvfathom::cache {

/// One latent and one rope key per token for all heads; V is the first kv_lora_rank columns of K,
/// so nothing is stored for it (DeepSeek-V2, arXiv 2405.04434; llama.cpp PR 19067).
struct MlaLatent {
  static constexpr const char* name = "mla-latent";
  static constexpr const char* formula = "(kv_lora_rank + qk_rope_head_dim) * b_k";
  static constexpr const char* summary = "Latent attention with V a view of K: the V-less cache.";
  static constexpr const char* source = "arXiv 2405.04434; llama.cpp PR 19067";
  std::int64_t kv_lora_rank = 0;
  std::int64_t qk_rope_head_dim = 0;
  friend bool operator==(const MlaLatent&, const MlaLatent&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const MlaLatent& s) {
  return {.k_row_elements = s.kv_lora_rank + s.qk_rope_head_dim};
}

}  // namespace kvfathom::cache
