// Scheme `mla-expanded`: per-head K and V, as if latent attention were MHA.
#pragma once

#include "model/cache/layout.h"

namespace kvfathom::cache {

/// What engines do that do not know MLA (and llama.cpp for files without MLA keys).
struct MlaExpanded {
  static constexpr const char* name = "mla-expanded";
  static constexpr const char* formula =
      "n_heads * ((qk_nope_head_dim + qk_rope_head_dim) * b_k + v_head_dim * b_v)";
  static constexpr const char* summary = "Per-head K and V, as engines do that do not know MLA.";
  static constexpr const char* source = "arXiv 2405.04434, as MHA";
  std::int64_t n_heads = 0;
  std::int64_t qk_nope_head_dim = 0;
  std::int64_t qk_rope_head_dim = 0;
  std::int64_t v_head_dim = 0;
  friend bool operator==(const MlaExpanded&, const MlaExpanded&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const MlaExpanded& s) {
  return {.k_row_elements = s.n_heads * (s.qk_nope_head_dim + s.qk_rope_head_dim),
          .v_row_elements = s.n_heads * s.v_head_dim};
}

}  // namespace kvfathom::cache
