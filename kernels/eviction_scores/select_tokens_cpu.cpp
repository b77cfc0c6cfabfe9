#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/common/parallel.h"
#include "kernels/common/score_key.h"
#include "kernels/eviction_scores/select_tokens.h"

namespace kvfathom::kernels {
namespace {

void select_row(const SelectTokensParams& params, std::int64_t row) {
  const int length = params.lengths[params.lengths_per_head ? row : row / params.n_heads];
  const int budget = params.budgets != nullptr ? params.budgets[row] : params.budget;
  const int n_kept = std::min(length, budget);
  // Key descending, then position ascending, as one ascending number.
  std::vector<std::uint64_t> order(length);
  for (int token = 0; token < length; ++token) {
    const bool must = token < params.n_sinks || token >= length - params.n_recent;
    const float score =
        params.scores != nullptr ? params.scores[row * params.max_tokens + token] : 0.0F;
    const std::uint32_t key = must ? kKeptKey : score_key(score);
    order[token] = std::uint64_t{~key} << 32 | static_cast<std::uint32_t>(token);
  }
  if (n_kept < length) {
    std::nth_element(order.begin(), order.begin() + n_kept, order.end());
  }
  std::int32_t* kept = params.kept + row * params.budget;
  for (int i = 0; i < n_kept; ++i) {
    kept[i] = static_cast<std::int32_t>(order[i] & 0xffffffffU);
  }
  std::sort(kept, kept + n_kept);
  params.n_kept[row] = n_kept;
}

void copy_bytes(const std::byte* from, const std::byte* to, std::int64_t bytes) {
  std::memcpy(
      const_cast<std::byte*>(to), from, bytes);  // NOLINT: the params ask for writable memory
}

void gather_head(const GatherCacheParams& params, int sequence, int head) {
  const KvFormat format = params.from.format;
  const std::int64_t data_bytes = row_data_bytes(format, params.head_dim);
  const std::int64_t scale_bytes = row_scale_bytes(format, params.head_dim);
  const int row = params.kept_per_head ? sequence * params.from.n_kv_heads + head : sequence;
  for (int slot = 0; slot < params.n_kept[row]; ++slot) {
    const std::int32_t token = params.kept[std::int64_t{row} * params.budget + slot];
    const KvSlot source = slot_of(params.from, sequence, token);
    const KvSlot target = slot_of(params.to, sequence, slot);
    for (const auto& [from, to] :
         {std::pair{&params.from.k, &params.to.k}, std::pair{&params.from.v, &params.to.v}}) {
      copy_bytes(row_data(*from, source, head), row_data(*to, target, head), data_bytes);
      if (scale_bytes > 0) {
        copy_bytes(row_scales(*from, source, head), row_scales(*to, target, head), scale_bytes);
      }
    }
  }
}

}  // namespace

void select_tokens_cpu(const SelectTokensParams& params, int n_threads) {
  check_select_tokens(params);
  const int n_rows = params.n_sequences * params.n_heads;
  parallel_shares(n_threads, n_rows, [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      select_row(params, row);
    }
  });
}

void gather_cache_cpu(const GatherCacheParams& params, int n_threads) {
  check_gather_cache(params);
  const int n_heads = params.from.n_kv_heads;
  const int n_pairs = params.from.n_sequences * n_heads;
  parallel_shares(n_threads, n_pairs, [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      gather_head(params, static_cast<int>(i / n_heads), static_cast<int>(i % n_heads));
    }
  });
  const int n_lengths = params.from.n_sequences * (params.kept_per_head ? n_heads : 1);
  std::copy_n(params.n_kept, n_lengths, const_cast<std::int32_t*>(params.to.lengths));  // NOLINT
}

}  // namespace kvfathom::kernels
