// What the launches of one MoE layer hand to each other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/moe_ffn/moe_ffn.h"

namespace kvfathom::kernels {

/// A pair is one token's choice of one expert; pair p belongs to token p / n_chosen.
struct MoeScratch {
  std::int32_t* experts = nullptr;  ///< [pairs]
  float* weights = nullptr;         ///< [pairs]
  std::int32_t* starts = nullptr;   ///< [n_experts + 1] where an expert's pairs start in `order`
  std::int32_t* order = nullptr;    ///< [pairs] by expert, then by number
  std::uint16_t* inner = nullptr;   ///< [pairs, intermediate_size] in that order
  float* answers = nullptr;         ///< [pairs, hidden_size] by number of the pair
};

/// Lays the parts out from `base`, each on a 256-byte boundary; null: only counts.
inline std::int64_t lay_out(const MoeFfnParams& p, std::byte* base, MoeScratch& scratch) {
  std::int64_t used = 0;
  const auto take = [&]<typename T>(T*& part, std::int64_t n) {
    part = base == nullptr ? nullptr : reinterpret_cast<T*>(base + used);
    used += (n * static_cast<std::int64_t>(sizeof(T)) + 255) / 256 * 256;
  };
  const std::int64_t pairs = static_cast<std::int64_t>(p.n_tokens) * p.n_chosen;
  take(scratch.experts, pairs);
  take(scratch.weights, pairs);
  take(scratch.starts, p.n_experts + 1);
  take(scratch.order, pairs);
  take(scratch.inner, pairs * p.intermediate_size);
  take(scratch.answers, pairs * p.hidden_size);
  return used;
}

/// Scores, chooses and weighs: fills experts, weights, starts and order.
void moe_route_launch(const MoeFfnParams& params, const MoeScratch& scratch, Stream stream);

}  // namespace kvfathom::kernels
