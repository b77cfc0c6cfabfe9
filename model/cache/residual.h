// Scheme `residual`: the residual stream is kept; K and V are computed from it again.
#pragma once

#include <algorithm>
#include <array>

#include "model/cache/kv_rows.h"
#include "model/cache/parameter.h"

namespace kvfathom::cache {

struct ResidualParameters {
  static constexpr std::int64_t kAll = -1;
  static constexpr std::int64_t kTokens = 0;
  static constexpr std::array<Word, 2> kWords{{{"all", kAll}, {"tokens", kTokens}}};

  std::int64_t checkpoints = kAll;  ///< vectors per token, of all layers together
  std::int64_t window = 0;          ///< the last tokens keep K and V instead
  friend bool operator==(const ResidualParameters&, const ResidualParameters&) = default;

  static constexpr std::array<Key<ResidualParameters>, 2> keys() {
    using P = ResidualParameters;
    return {
        {{"checkpoints", &P::checkpoints, 1, 1024, kWords}, {"window", &P::window, 0, 1 << 24}}};
  }
};

/// `all` is a vector for every layer (HCache, arXiv 2410.05004): K and V of a layer are one
/// projection away. A number is so many evenly spaced ones: the layers between are run again over
/// all earlier tokens (KV-Direct, arXiv 2603.19664, counts one). `tokens` keeps the 4-byte ids
/// from which all follows: a prefill of the whole context whenever it is read.
struct Residual {
  static constexpr const char* name = "residual";
  static constexpr const char* formula =
      "hidden_size * 2 B, at each checkpoint; 4 B in all for token ids";
  static constexpr const char* summary = "The layer's input; K and V are computed from it again.";
  static constexpr const char* source = "arXiv 2410.05004, 2603.19664";
  KvRows kv;
  ResidualParameters parameters;
  std::int64_t hidden_size = 0;
  bool is_checkpoint = true;  ///< this layer's input is stored
  bool holds_ids = false;     ///< the one layer that the token ids are counted with
  friend bool operator==(const Residual&, const Residual&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const Residual& s) {
  constexpr std::int64_t kVectorElementBits = 16;
  constexpr std::int64_t kTokenIdBits = 32;
  const CacheLayout kv = layout(s.kv);
  CacheLayout result{.token_cap = kv.token_cap,
                     .exact_tokens = s.parameters.window,
                     .exact_k_elements = kv.k_row_elements,
                     .exact_v_elements = kv.v_row_elements,
                     .rebuilt_elements = kv.k_row_elements + kv.v_row_elements};
  if (s.parameters.checkpoints == ResidualParameters::kTokens) {
    result.k_packed_bits = s.holds_ids ? kTokenIdBits : 0;
  } else if (s.is_checkpoint) {
    result.k_packed_bits = kVectorElementBits * s.hidden_size;
  }
  if (s.parameters.checkpoints != ResidualParameters::kAll) {
    // Other layers follow from it, so a layer's own window bounds only what it keeps of K and V.
    result.exact_tokens = std::min(result.exact_tokens, kv.token_cap.value_or(result.exact_tokens));
    result.token_cap = std::nullopt;
    result.rebuilt_elements += 2 * s.hidden_size;  // the layers between run again: x in and out
  }
  return result;
}

/// Bytes per second of a link at which fetching X and computing K and V from it take the same time:
/// on a slower one the computing hides (HCache's balance). 2 FLOPs for each of the 2 * kv_width
/// products an element of X enters.
[[nodiscard]] constexpr double balanced_bandwidth_bytes_per_s(double flops_per_s,
                                                              std::int64_t element_bytes,
                                                              std::int64_t kv_width) {
  return flops_per_s * static_cast<double>(element_bytes) / static_cast<double>(4 * kv_width);
}

}  // namespace kvfathom::cache
