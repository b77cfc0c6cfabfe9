// Scheme `kivi`: K quantised per channel, V per token, the newest tokens in 16 bits.
#pragma once

#include <array>

#include "model/cache/kv_rows.h"
#include "model/cache/parameter.h"
#include "model/cache/xquant.h"

namespace kvfathom::cache {

struct KiviParameters {
  std::int64_t bits = 2;
  std::int64_t group = 32;      ///< values that share a scale and a minimum of 16 bits each
  std::int64_t residual = 128;  ///< the last tokens of V; K is quantised in blocks of so many
  friend bool operator==(const KiviParameters&, const KiviParameters&) = default;

  static constexpr std::array<Key<KiviParameters>, 3> keys() {
    using P = KiviParameters;
    return {{{"bits", &P::bits, 2, 8},
             {"group", &P::group, 8, 1024},
             {"residual", &P::residual, 0, 4096}}};
  }
};

/// KIVI (arXiv 2402.02750, its code): a group of K is `group` tokens of one channel, one of V
/// `group` channels of one token. The memory is not monotone: a full block of K shrinks at once.
struct Kivi {
  static constexpr const char* name = "kivi";
  static constexpr const char* formula =
      "n_kv_heads * (head_dim + v_head_dim) * (bits + 32 / group) / 8";
  static constexpr const char* summary = "K by channel and V by token in 2 or 4 bits.";
  static constexpr const char* source = "arXiv 2402.02750";
  KvRows kv;
  KiviParameters parameters;
  friend bool operator==(const Kivi&, const Kivi&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const Kivi& s) {
  const KiviParameters& p = s.parameters;
  const CacheLayout kv = layout(s.kv);
  return {.token_cap = kv.token_cap,
          .k_packed_bits = grouped_bits(kv.k_row_elements, p.bits, p.group),
          .v_packed_bits = grouped_bits(kv.v_row_elements, p.bits, p.group),
          .exact_tokens = p.residual,
          .exact_k_elements = kv.k_row_elements,
          .exact_v_elements = kv.v_row_elements,
          .k_flush_tokens = p.residual};
}

}  // namespace kvfathom::cache
