// Scheme `xquant`: the layer's normalised input, quantised; K and V are rebuilt at every step.
#pragma once

#include <array>

#include "model/cache/kv_rows.h"
#include "model/cache/parameter.h"
#include "model/rounding.h"

namespace kvfathom::cache {

struct XQuantParameters {
  std::int64_t bits = 4;
  std::int64_t group = 128;  ///< values that share a scale and a minimum of 16 bits each
  std::int64_t exact = 128;  ///< the last tokens stay in 16 bits
  friend bool operator==(const XQuantParameters&, const XQuantParameters&) = default;

  static constexpr std::array<Key<XQuantParameters>, 3> keys() {
    using P = XQuantParameters;
    return {
        {{"bits", &P::bits, 2, 8}, {"group", &P::group, 8, 1024}, {"exact", &P::exact, 0, 4096}}};
  }
};

/// Bits of `elements` values in groups that share a 16-bit scale and a 16-bit minimum.
[[nodiscard]] constexpr std::int64_t grouped_bits(std::int64_t elements,
                                                  std::int64_t bits,
                                                  std::int64_t group) {
  constexpr std::int64_t kScaleAndMinimumBits = 32;
  return elements * bits + divide_up(elements * kScaleAndMinimumBits, group);
}

/// XQuant (arXiv 2508.10395). MHA stores X, half of K and V; with grouped queries X is the wider,
/// so X U_k and X U_v are stored (W = U S B^T, offline): as many values as K and V, and U and
/// S B^T are weights beside the model's own.
struct XQuant {
  static constexpr const char* name = "xquant";
  static constexpr const char* formula =
      "(bits + 32 / group) / 8 * (MHA: hidden_size; GQA: 2 * n_kv_heads * head_dim)";
  static constexpr const char* summary = "The layer's input, quantised; K and V rebuilt from it.";
  static constexpr const char* source = "arXiv 2508.10395";
  KvRows kv;
  XQuantParameters parameters;
  std::int64_t hidden_size = 0;
  bool grouped_queries = false;
  friend bool operator==(const XQuant&, const XQuant&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const XQuant& s) {
  const XQuantParameters& p = s.parameters;
  const CacheLayout kv = layout(s.kv);
  CacheLayout result{.token_cap = kv.token_cap,
                     .exact_tokens = p.exact,
                     .rebuilt_elements = kv.k_row_elements + kv.v_row_elements};
  if (!s.grouped_queries) {
    result.k_packed_bits = grouped_bits(s.hidden_size, p.bits, p.group);
    result.exact_k_elements = s.hidden_size;
    return result;
  }
  result.k_packed_bits = grouped_bits(kv.k_row_elements, p.bits, p.group);
  result.v_packed_bits = grouped_bits(kv.v_row_elements, p.bits, p.group);
  result.exact_k_elements = kv.k_row_elements;
  result.exact_v_elements = kv.v_row_elements;
  result.extra_weight_elements = kv.k_row_elements * (s.hidden_size + kv.k_row_elements) +
                                 kv.v_row_elements * (s.hidden_size + kv.v_row_elements);
  return result;
}

}  // namespace kvfathom::cache
