#include "model/ops/eviction_scores.h"

namespace kvfathom {
namespace {

constexpr double kFloat = 4.0;
constexpr double kQueryBytes = 2.0;  // of an element
constexpr double kIndexBytes = 4.0;

double score_rows(const EvictionShape& shape) {
  const std::int64_t rows = shape.per_layer ? 1 : shape.n_kv_heads;
  return static_cast<double>(shape.n_sequences) * static_cast<double>(rows);
}

}  // namespace

OpCost eviction_scores_cost(const EvictionShape& shape) {
  const auto queries = static_cast<double>(shape.n_queries);
  const auto tokens = static_cast<double>(shape.n_tokens);
  const double rows = static_cast<double>(shape.n_sequences) * static_cast<double>(shape.n_heads);
  const double seen = queries * tokens - queries * (queries - 1.0) / 2.0;  // causal
  const double keys = static_cast<double>(shape.n_sequences) *
                      static_cast<double>(shape.n_kv_heads) * tokens *
                      static_cast<double>(shape.stored_row_bytes);
  const double q = rows * queries * static_cast<double>(shape.head_dim) * kQueryBytes;
  const double logits = rows * seen * kFloat;
  const double statistics = rows * queries * 2.0 * kFloat;
  const double scores = score_rows(shape) * tokens * kFloat;
  return OpCost{
      .read = Bytes(keys + q + 2.0 * logits + statistics + (shape.accumulate ? scores : 0.0)),
      .written = Bytes(logits + statistics + scores),
      .flops = Flops(2.0 * rows * seen * static_cast<double>(shape.head_dim)),
      .launches = 3,
  };
}

OpCost pool_scores_cost(const EvictionShape& shape, std::int64_t n_window, std::int64_t width) {
  const double scores = score_rows(shape) * static_cast<double>(shape.n_tokens - n_window);
  return OpCost{
      .read = Bytes(scores * kFloat),
      .written = Bytes(scores * kFloat),
      .flops = Flops(scores * static_cast<double>(width)),
  };
}

OpCost select_tokens_cost(const EvictionShape& shape, std::int64_t n_kept, std::int64_t n_certain) {
  const double rows = score_rows(shape);
  return OpCost{
      .read = Bytes(rows * static_cast<double>(shape.n_tokens - n_certain) * kFloat),
      .written = Bytes(rows * static_cast<double>(n_kept + 1) * kIndexBytes),
      .flops = Flops(0.0),
  };
}

OpCost gather_cache_cost(const EvictionShape& shape, std::int64_t n_kept) {
  const double bytes = 2.0 * static_cast<double>(shape.n_sequences) *
                       static_cast<double>(shape.n_kv_heads) * static_cast<double>(n_kept) *
                       static_cast<double>(shape.stored_row_bytes);
  return OpCost{
      .read = Bytes(bytes),
      .written = Bytes(bytes + score_rows(shape) * kIndexBytes),
      .flops = Flops(0.0),
  };
}

}  // namespace kvfathom
