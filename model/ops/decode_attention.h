// Decode attention over a cache: what one layer's call moves and computes.
#pragma once

#include <cstdint>
#include <vector>

#include "model/ops/op_cost.h"

namespace kvfathom {

/// One new token per sequence against its cached keys and values (MHA, GQA, MQA).
struct DecodeAttentionShape {
  std::int64_t n_heads = 0;
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;
  /// Cached tokens: one number for all sequences; or one for each; or, where heads keep different
  /// tokens, n_kv_heads for each.
  std::vector<std::int64_t> lengths;
  std::int64_t n_sequences = 0;
  std::int64_t window_tokens = 0;  ///< attended besides the first sink_tokens; 0: all
  std::int64_t sink_tokens = 0;
  bool sink_logits = false;

  std::int64_t row_bytes = 0;         ///< of one K or V row without its scales
  std::int64_t row_scale_bytes = 0;   ///< of the scales of one row
  std::int64_t head_scale_bytes = 0;  ///< of one KV head's K or V, for all its tokens

  std::int64_t n_splits = 1;         ///< runs that the launch rule makes of the tokens
  std::int64_t heads_per_pass = 16;  ///< query heads that share one reading of K and V
};

/// Tokens that a query of a sequence of `length` attends to.
[[nodiscard]] std::int64_t attended_tokens(std::int64_t length,
                                           std::int64_t window_tokens,
                                           std::int64_t sink_tokens);

/// Queries of 16 bits, outputs of 32. More than one split adds the states that the runs leave (32
/// bits, head_dim + 2 a head) and the merge that reads them back.
[[nodiscard]] OpCost decode_attention_cost(const DecodeAttentionShape& shape);

}  // namespace kvfathom
