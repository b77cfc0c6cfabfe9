// Scheme `mla-with-v`: the latent cache with a second copy of the latent stored as V.
#pragma once

#include "model/cache/mla_latent.h"

namespace kvfathom::cache {

/// What llama.cpp kept before PR 19067: 47 % of it repeats what K holds.
struct MlaWithV {
  static constexpr const char* name = "mla-with-v";
  static constexpr const char* formula =
      "(kv_lora_rank + qk_rope_head_dim) * b_k + kv_lora_rank * b_v";
  static constexpr const char* summary =
      "The latent plus a copy of it as V: llama.cpp before January 2026.";
  static constexpr const char* source = "llama.cpp before PR 19067";
  MlaLatent latent;
  friend bool operator==(const MlaWithV&, const MlaWithV&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const MlaWithV& s) {
  CacheLayout result = layout(s.latent);
  result.v_row_elements = s.latent.kv_lora_rank;
  return result;
}

}  // namespace kvfathom::cache
