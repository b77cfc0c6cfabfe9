// SnapKV's choice of tokens, and the guards among them.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/common/error.h"
#include "kernels/ridge_refine/ridge_refine.h"

namespace kvfathom::kernels {
namespace {

/// Means over windows of `pool`, centred; what lies outside counts as 0 (torch's avg_pool1d).
std::vector<float> pooled(const std::vector<float>& scores, int n, int pool) {
  std::vector<float> means(static_cast<std::size_t>(n));
  for (int token = 0; token < n; ++token) {
    float sum = 0.0F;
    for (int near = token - pool / 2; near <= token + pool / 2; ++near) {
      sum += near >= 0 && near < n ? scores[near] : 0.0F;
    }
    means[token] = sum / static_cast<float>(pool);
  }
  return means;
}

}  // namespace

SpanRetention retain_spans(const std::vector<float>& scores,
                           int budget,
                           int window_tokens,
                           int pool,
                           double guard_fraction) {
  if (pool < 1 || pool % 2 == 0 || window_tokens < 0) {
    throw UnsupportedShape("pool must be odd and window_tokens not negative");
  }
  const int n_tokens = static_cast<int>(scores.size());
  const int window = std::min(window_tokens, n_tokens);
  const int n_older = n_tokens - window;
  const int n_chosen = std::clamp(budget - window, 0, n_older);
  const std::vector<float> means = pooled(scores, n_older, pool);

  std::vector<std::int32_t> by_score(static_cast<std::size_t>(n_older));
  std::iota(by_score.begin(), by_score.end(), 0);
  std::stable_sort(by_score.begin(), by_score.end(), [&](std::int32_t a, std::int32_t b) {
    return means[a] > means[b];
  });
  const auto n_guards =
      static_cast<int>(std::floor(guard_fraction * static_cast<double>(n_chosen + window)));
  std::vector<std::uint8_t> is_guard(static_cast<std::size_t>(n_tokens), 0);
  for (int rank = 0; rank < std::min(n_guards, n_chosen); ++rank) {
    is_guard[by_score[rank]] = 1;
  }

  SpanRetention result;
  result.kept.assign(by_score.begin(), by_score.begin() + n_chosen);
  std::sort(result.kept.begin(), result.kept.end());
  for (int token = n_older; token < n_tokens; ++token) {
    result.kept.push_back(token);
    is_guard[token] = 1;
  }
  for (const std::int32_t token : result.kept) {
    result.fixed.push_back(is_guard[token]);
  }
  return result;
}

}  // namespace kvfathom::kernels
