// What absorbed MLA decode asks of the machine.
#pragma once

#include <cstdint>

#include "model/ops/op_cost.h"

namespace kvfathom {

struct MlaDecodeShape {
  std::int64_t n_sequences = 0;
  std::int64_t n_cached_tokens = 0;  ///< of all sequences together
  int n_heads = 0;
  int kv_lora_rank = 0;
  int qk_rope_head_dim = 0;
  bool fp8_latent = false;  ///< FlashMLA's layout: E4M3 latent, a float scale per 128, bf16 rope
  bool separate_v = false;  ///< V is stored a second time, in bf16, and read from there
  /// Groups of heads that do not fit one block's shared memory together: each reads all rows.
  int n_passes = 1;
  int n_splits = 1;  ///< runs of tokens per sequence, whose float states are written and merged
};

/// Bytes of one cached token, V's own copy included: (r + d_r) 2, or r + 4 r / 128 + 2 d_r.
[[nodiscard]] Bytes mla_token_bytes(const MlaDecodeShape& shape);

/// passes x tokens x token bytes + queries + states (of sequences that hold tokens); 2 heads (2 r +
/// d_r) FLOPs a token (DeepSeek-V2 s2.1, absorbed form).
[[nodiscard]] OpCost mla_decode_cost(const MlaDecodeShape& shape);

}  // namespace kvfathom
