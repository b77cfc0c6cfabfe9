#include "model/ops/residual_recompute.h"

#include "model/ops/cache_write.h"

namespace kvfathom {
namespace {

constexpr double kActivationBytes = 2.0;

OpCost chunk_cost(const ResidualRecomputeShape& shape, std::int64_t n_tokens) {
  const auto tokens = static_cast<double>(n_tokens);
  const auto columns = static_cast<double>(shape.n_columns);
  const auto width = static_cast<double>(shape.n_kv_heads * shape.head_dim);
  const double inputs = shape.separate_v ? 2.0 : 1.0;
  const double prepared = tokens * inputs * columns * kActivationBytes;
  const double norm_weights = shape.norm ? inputs * columns * kActivationBytes : 0.0;
  OpCost cost{
      .read = Bytes(tokens * shape.stored_row_bytes + norm_weights),
      .written = Bytes(prepared),
      .flops = Flops(shape.norm ? 4.0 * tokens * inputs * columns : 0.0),
      .launches = shape.separate_v ? 2 : 1,
  };
  const double rebuilt = tokens * width * kActivationBytes;  // of K, or of V
  cost = cost + OpCost{.read = Bytes(prepared + 2.0 * width * columns * kActivationBytes),
                       .written = Bytes(2.0 * rebuilt),
                       .flops = Flops(4.0 * tokens * columns * width)};
  if (shape.k_norm) {
    cost = cost +
           OpCost{.read = Bytes(rebuilt + static_cast<double>(shape.head_dim) * kActivationBytes),
                  .written = Bytes(rebuilt),
                  .flops = Flops(4.0 * tokens * width)};
  }
  return cost + cache_write_cost({.n_tokens = n_tokens,
                                  .n_kv_heads = shape.n_kv_heads,
                                  .head_dim = shape.head_dim,
                                  .rotary_dim = shape.rotary_dim,
                                  .element_bytes = kActivationBytes,
                                  .stored_row_bytes = shape.cache_row_bytes});
}

}  // namespace

OpCost residual_recompute_cost(const ResidualRecomputeShape& shape) {
  const auto whole_chunks = static_cast<int>(shape.n_tokens / shape.chunk_tokens);
  const std::int64_t rest = shape.n_tokens % shape.chunk_tokens;
  const OpCost cost = whole_chunks * chunk_cost(shape, shape.chunk_tokens);
  return rest > 0 ? cost + chunk_cost(shape, rest) : cost;
}

}  // namespace kvfathom
