// Which tokens an eviction keeps, and the copy of a cache that holds only those.
#pragma once

#include <cstdint>

#include "kernels/common/device.h"
#include "kernels/common/kv_cache.h"

namespace kvfathom::kernels {

/// Keeps the first n_sinks and the last n_recent tokens, then those of the highest scores; equal
/// scores go to the lower positions. Without scores that is StreamingLLM (2309.17453), whose
/// budget is n_sinks + n_recent. Buffers live where the callee runs.
struct SelectTokensParams {
  int n_sequences = 0;
  int n_heads = 0;  ///< that select for themselves: KV heads, or 1 for a layer
  int max_tokens = 0;
  const std::int32_t* lengths = nullptr;  ///< [n_sequences], or [n_sequences, n_heads]
  bool lengths_per_head = false;
  const float* scores = nullptr;  ///< [n_sequences, n_heads, max_tokens]; null: all equal
  int n_sinks = 0;
  int n_recent = 0;
  int budget = 0;                         ///< tokens to keep, at most
  const std::int32_t* budgets = nullptr;  ///< [n_sequences, n_heads], each <= budget; null: budget
  std::int32_t* kept = nullptr;           ///< [n_sequences, n_heads, budget] ascending positions
  std::int32_t* n_kept = nullptr;         ///< [n_sequences, n_heads] min(length, budget)
};

void check_select_tokens(const SelectTokensParams& params);
void select_tokens_reference(const SelectTokensParams& params);
void select_tokens_cpu(const SelectTokensParams& params, int n_threads = 0);
void select_tokens_launch(const SelectTokensParams& params, Stream stream = nullptr);

/// Copies the kept rows of K and V, as stored, to the front of another cache.
struct GatherCacheParams {
  int head_dim = 0;
  KvCacheView from = {};
  /// Of the same format and heads; not the same memory. Its rows and its lengths are written,
  /// though the view's pointers are const. Scales of fp8_e4m3 belong to heads: they are not copied.
  KvCacheView to = {};
  int budget = 0;
  const std::int32_t* kept = nullptr;    ///< [n_sequences, n_kv_heads or 1, budget]
  const std::int32_t* n_kept = nullptr;  ///< [n_sequences, n_kv_heads or 1]
  bool kept_per_head = true;             ///< what to.lengths_per_head must say, too
};

void check_gather_cache(const GatherCacheParams& params);
void gather_cache_cpu(const GatherCacheParams& params, int n_threads = 0);
void gather_cache_launch(const GatherCacheParams& params, Stream stream = nullptr);

}  // namespace kvfathom::kernels
