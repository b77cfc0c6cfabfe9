#include <string>

#include "kernels/common/error.h"
#include "kernels/eviction_scores/eviction_scores.h"
#include "kernels/eviction_scores/select_tokens.h"

namespace kvfathom::kernels {
namespace {

void require(bool holds, const std::string& otherwise) {
  if (!holds) {
    throw UnsupportedShape(otherwise);
  }
}

}  // namespace

void check_eviction_scores(const EvictionScoresParams& params) {
  static_cast<void>(row_data_bytes(params.cache.format, params.head_dim));  // whole blocks
  require(params.head_dim > 0 && params.head_dim % 8 == 0 && params.head_dim <= 256,
          "eviction_scores: head_dim = " + std::to_string(params.head_dim) +
              "; built for multiples of 8 up to 256");
  require(params.cache.n_kv_heads > 0 && params.n_heads % params.cache.n_kv_heads == 0,
          "eviction_scores: " + std::to_string(params.n_heads) + " heads are no multiple of " +
              std::to_string(params.cache.n_kv_heads) + " KV heads");
  require(params.n_queries > 0, "eviction_scores: no queries");
  require(!params.per_layer || !params.cache.lengths_per_head,
          "eviction_scores: one score per layer needs one length per sequence");
}

std::int64_t eviction_scores_scratch_bytes(const EvictionScoresParams& params) {
  const std::int64_t n_rows =
      std::int64_t{params.cache.n_sequences} * params.n_heads * params.n_queries;
  return n_rows * (params.max_tokens + 2) * static_cast<std::int64_t>(sizeof(float));
}

void check_pool_scores(const PoolScoresParams& params) {
  require(params.width > 0 && params.width % 2 == 1,
          "pool_scores: width = " + std::to_string(params.width) + " is not odd");
}

void check_select_tokens(const SelectTokensParams& params) {
  require(params.budget >= params.n_sinks + params.n_recent,
          "select_tokens: a budget of " + std::to_string(params.budget) + " holds no " +
              std::to_string(params.n_sinks) + " sinks and " + std::to_string(params.n_recent) +
              " recent tokens");
}

void check_gather_cache(const GatherCacheParams& params) {
  require(params.from.format == params.to.format &&
              params.from.n_sequences == params.to.n_sequences &&
              params.from.n_kv_heads == params.to.n_kv_heads,
          "gather_cache: the caches differ in format, sequences or heads");
  require(params.to.lengths_per_head == params.kept_per_head,
          "gather_cache: lengths and kept tokens must both be per head, or neither");
  require(row_data_bytes(params.from.format, params.head_dim) % 4 == 0,
          "gather_cache: rows are no multiple of 4 bytes");
}

}  // namespace kvfathom::kernels
