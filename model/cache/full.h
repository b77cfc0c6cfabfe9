// Scheme `full`: K and V of every token, every KV head.
#pragma once

#include "model/cache/layout.h"

namespace kvfathom::cache {

/// MHA, GQA or MQA (Ainslie 2023, arXiv 2305.13245) over the whole context.
struct Full {
  static constexpr const char* name = "full";
  static constexpr const char* formula = "n_kv_heads * (head_dim * b_k + v_head_dim * b_v)";
  static constexpr const char* summary =
      "K and V of every token; asked for by name, it lifts sliding windows.";
  static constexpr const char* source = "arXiv 2305.13245";
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t v_head_dim = 0;
  friend bool operator==(const Full&, const Full&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const Full& s) {
  return {.k_row_elements = s.n_kv_heads * s.head_dim,
          .v_row_elements = s.n_kv_heads * s.v_head_dim};
}

}  // namespace kvfathom::cache
