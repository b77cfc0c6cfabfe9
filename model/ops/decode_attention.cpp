#include "model/ops/decode_attention.h"

#include <algorithm>

#include "model/rounding.h"

namespace kvfathom {
namespace {

constexpr std::int64_t kQueryBytes = 2;
constexpr std::int64_t kFloatBytes = 4;

/// Bytes and multiply-adds as whole numbers, exact until the end.
struct Tally {
  std::int64_t read = 0;
  std::int64_t written = 0;
  std::int64_t multiply_adds = 0;
};

/// `n` KV heads that hold so many tokens each, and the query heads that share them.
void add_kv_heads(const DecodeAttentionShape& shape,
                  std::int64_t n,
                  std::int64_t tokens,
                  Tally& tally) {
  if (tokens == 0) {
    return;
  }
  const std::int64_t heads = shape.n_heads / shape.n_kv_heads;
  const std::int64_t passes = divide_up(heads, shape.heads_per_pass);
  tally.read += n * tokens * 2 * (shape.row_bytes * passes + shape.row_scale_bytes);
  tally.read += n * heads * shape.head_dim * kQueryBytes;
  tally.multiply_adds += n * tokens * heads * 2 * shape.head_dim;
}

void add_merge(const DecodeAttentionShape& shape, Tally& tally) {
  const std::int64_t states = shape.n_sequences * shape.n_heads * shape.n_splits;
  const std::int64_t bytes = states * (shape.head_dim + 2) * kFloatBytes;
  tally.written += bytes;
  tally.read += bytes;
}

}  // namespace

std::int64_t attended_tokens(std::int64_t length,
                             std::int64_t window_tokens,
                             std::int64_t sink_tokens) {
  if (window_tokens == 0) {
    return length;
  }
  return std::min(length, window_tokens + sink_tokens);
}

OpCost decode_attention_cost(const DecodeAttentionShape& shape) {
  Tally tally;
  const std::int64_t rows = shape.n_sequences * shape.n_kv_heads;
  const auto n_lengths = static_cast<std::int64_t>(shape.lengths.size());
  for (const std::int64_t length : shape.lengths) {
    const std::int64_t tokens = attended_tokens(length, shape.window_tokens, shape.sink_tokens);
    add_kv_heads(shape, rows / n_lengths, tokens, tally);
  }
  tally.read += 2 * shape.n_kv_heads * shape.head_scale_bytes;
  tally.read += shape.sink_logits ? shape.n_heads * kFloatBytes : 0;
  tally.written += shape.n_sequences * shape.n_heads * shape.head_dim * kFloatBytes;
  if (shape.n_splits > 1) {
    add_merge(shape, tally);
  }
  return OpCost{Bytes(static_cast<double>(tally.read)),
                Bytes(static_cast<double>(tally.written)),
                Flops(2.0 * static_cast<double>(tally.multiply_adds)),
                shape.n_splits > 1 ? 2 : 1};
}

}  // namespace kvfathom
