// What an eviction loses: how far attention over the kept tokens is from attention over all.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvfathom::kernels {

/// One head's attention, on the host.
struct AttentionSample {
  int n_queries = 0;
  int n_tokens = 0;
  int head_dim = 0;
  float softmax_scale = 1.0F;
  std::span<const float> q;  ///< [n_queries, head_dim]
  std::span<const float> k;  ///< [n_tokens, head_dim]
  std::span<const float> v;  ///< [n_tokens, head_dim]
};

/// ||o(kept) - o(all)|| / ||o(all)|| over all queries, in double; 1 where nothing is kept.
[[nodiscard]] double eviction_output_error(const AttentionSample& sample,
                                           std::span<const std::int32_t> kept);

/// The error at each budget, where the tokens are chosen as select_tokens does.
[[nodiscard]] std::vector<double> eviction_error_by_budget(const AttentionSample& sample,
                                                           std::span<const float> scores,
                                                           std::span<const int> budgets,
                                                           int n_sinks,
                                                           int n_recent);

}  // namespace kvfathom::kernels
