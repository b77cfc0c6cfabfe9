// Scheme `state`: a recurrent layer's state and convolution history, fixed per sequence.
#pragma once

#include "model/architecture/model_spec.h"
#include "model/cache/layout.h"

namespace kvfathom::cache {

/// State elements and convolution history of one sequence. The convolution keeps d_conv - 1
/// columns, since the oldest is shifted out by the new one.
struct State {
  static constexpr const char* name = "state";
  static constexpr const char* formula =
      "per sequence: heads * d_k * d_v * b_state + (d_conv - 1) * channels * b_conv";
  static constexpr const char* summary = "Fixed recurrent state (Mamba, delta nets, RWKV).";
  static constexpr const char* source = "arXiv 2312.00752, 2405.21060, 2412.06464";
  std::int64_t state_elements = 0;
  std::int64_t conv_elements = 0;
  friend bool operator==(const State&, const State&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const State& s) {
  return {.state_elements = s.state_elements, .conv_elements = s.conv_elements};
}

/// d_inner x d_state; convolution over d_inner (arXiv 2312.00752).
[[nodiscard]] constexpr State state_of(const Mamba& m) {
  return {m.d_inner * m.d_state, (m.d_conv - 1) * m.d_inner};
}

/// d_inner x d_state; convolution over d_inner and the groups of B and C (arXiv 2405.21060).
[[nodiscard]] constexpr State state_of(const Mamba2& m) {
  return {m.d_inner * m.d_state, (m.d_conv - 1) * (m.d_inner + 2 * m.n_groups * m.d_state)};
}

/// n_v_heads matrices of k_head_dim x v_head_dim; convolution over q, k, v (arXiv 2412.06464).
[[nodiscard]] constexpr State state_of(const GatedDeltaNet& m) {
  return {m.n_v_heads * m.k_head_dim * m.v_head_dim,
          (m.d_conv - 1) * (m.n_v_heads * m.v_head_dim + 2 * m.n_k_heads * m.k_head_dim)};
}

/// n_heads matrices of head_dim x head_dim; a convolution each for q, k and v (Kimi Linear).
[[nodiscard]] constexpr State state_of(const KimiDeltaAttention& m) {
  return {m.n_heads * m.head_dim * m.head_dim, 3 * (m.d_conv - 1) * m.n_heads * m.head_dim};
}

/// n_heads matrices of head_dim x head_dim, no convolution (MiniMax-01, arXiv 2501.08313).
[[nodiscard]] constexpr State state_of(const LightningAttention& m) {
  return {m.n_heads * m.head_dim * m.head_dim, 0};
}

/// n_heads matrices of head_dim x head_dim and two token shifts (RWKV-5 and later).
[[nodiscard]] constexpr State state_of(const Rwkv& m) {
  return {m.n_heads * m.head_dim * m.head_dim, 2 * m.n_heads * m.head_dim};
}

/// No state but the convolution's own history (LFM2).
[[nodiscard]] constexpr State state_of(const ShortConv& m) {
  return {0, (m.d_conv - 1) * m.channels};
}

}  // namespace kvfathom::cache
