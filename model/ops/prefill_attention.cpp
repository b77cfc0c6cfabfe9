#include "model/ops/prefill_attention.h"

#include <algorithm>

namespace kvfathom {
namespace {

constexpr double kElementBytes = 2.0;

/// Where a query of the chunk stands.
std::int64_t position(const PrefillAttentionShape& shape, std::int64_t query) {
  return shape.n_cached_tokens - shape.n_query_tokens + query;
}
std::int64_t first_seen(const PrefillAttentionShape& shape, std::int64_t at) {
  return shape.window_tokens > 0 ? std::max<std::int64_t>(0, at - shape.window_tokens + 1) : 0;
}
/// 1 + 2 + ... + n.
double triangle(std::int64_t n) {
  return n > 0 ? 0.5 * static_cast<double>(n) * static_cast<double>(n + 1) : 0.0;
}
double query_bytes(const PrefillAttentionShape& shape) {
  return static_cast<double>(shape.n_query_tokens) * shape.n_heads * shape.head_dim * kElementBytes;
}
double row_bytes(const PrefillAttentionShape& shape) {  // of K and V
  return 2.0 * shape.head_dim * kElementBytes;
}

}  // namespace

double prefill_attention_pairs(const PrefillAttentionShape& shape) {
  const std::int64_t begin = position(shape, 0);
  const std::int64_t end = shape.n_cached_tokens;
  const double seen_without_window = triangle(end) - triangle(begin);
  if (shape.window_tokens <= 0) {
    return seen_without_window;
  }
  const std::int64_t window = shape.window_tokens;
  return seen_without_window - (triangle(end - window) - triangle(begin - window));
}

OpCost prefill_attention_cost(const PrefillAttentionShape& shape) {
  double n_rows = 0.0;
  if (shape.n_query_tokens > 0) {
    const std::int64_t first = first_seen(shape, position(shape, 0));
    n_rows = static_cast<double>((shape.n_cached_tokens - first) * shape.n_kv_heads);
  }
  return OpCost{
      .read = Bytes(query_bytes(shape) + n_rows * row_bytes(shape)),
      .written = Bytes(query_bytes(shape)),
      .flops = Flops(4.0 * prefill_attention_pairs(shape) * shape.n_heads * shape.head_dim),
      .launches = 1,
  };
}

Bytes prefill_attention_requested(const PrefillAttentionShape& shape, int query_tile) {
  double n_rows = 0.0;
  for (std::int64_t query = 0; query < shape.n_query_tokens; query += query_tile) {
    const std::int64_t last = std::min(shape.n_query_tokens, query + query_tile) - 1;
    const std::int64_t seen = position(shape, last) + 1 - first_seen(shape, position(shape, query));
    n_rows += static_cast<double>(std::max<std::int64_t>(0, seen) * shape.n_heads);
  }
  return Bytes(query_bytes(shape) + n_rows * row_bytes(shape));
}

}  // namespace kvfathom
