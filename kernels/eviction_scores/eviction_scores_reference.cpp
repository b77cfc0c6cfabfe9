#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/eviction_scores/eviction_scores.h"
#include "kernels/eviction_scores/select_tokens.h"

namespace kvfathom::kernels {
namespace {

double query_element(const EvictionScoresParams& params, std::int64_t i) {
  return params.cache.format == KvFormat::bf16 ? to_f32(Bf16{params.q[i]})
                                               : to_f32(F16{params.q[i]});
}

std::vector<double> stored_key(const EvictionScoresParams& params,
                               int sequence,
                               int kv_head,
                               int token) {
  const KvCacheView& cache = params.cache;
  const KvSlot at = slot_of(cache, sequence, token);
  const bool per_head = cache.format == KvFormat::fp8_e4m3;
  return decode_row(cache.format,
                    params.head_dim,
                    row_data(cache.k, at, kv_head),
                    per_head ? nullptr : row_scales(cache.k, at, kv_head),
                    per_head ? reinterpret_cast<const float*>(cache.k.scales)[kv_head] : 1.0F);
}

/// The probabilities of one query of one head over the tokens it sees.
std::vector<double> probabilities(const EvictionScoresParams& params,
                                  int sequence,
                                  int query,
                                  int head,
                                  double& largest_abs_score) {
  const int kv_head = head / (params.n_heads / params.cache.n_kv_heads);
  const int n_seen = length_of(params.cache, sequence, kv_head) - params.n_queries + query + 1;
  const std::int64_t q =
      ((std::int64_t{sequence} * params.n_queries + query) * params.n_heads + head) *
      params.head_dim;
  std::vector<double> p;
  double largest = -INFINITY;
  for (int token = 0; token < n_seen; ++token) {
    const std::vector<double> k = stored_key(params, sequence, kv_head, token);
    double logit = 0.0;
    double magnitude = 0.0;
    for (int i = 0; i < params.head_dim; ++i) {
      const double product = params.softmax_scale * query_element(params, q + i) * k[i];
      logit += product;
      magnitude += std::fabs(product);
    }
    p.push_back(logit);
    largest = std::max(largest, logit);
    largest_abs_score = std::max(largest_abs_score, magnitude);
  }
  double sum = 0.0;
  for (double& x : p) {
    x = std::exp(x - largest);
    sum += x;
  }
  for (double& x : p) {
    x /= sum;
  }
  return p;
}

}  // namespace

void eviction_scores_reference(const EvictionScoresParams& params,
                               EvictionScoresReference& result) {
  const int n_groups = params.per_layer ? 1 : params.cache.n_kv_heads;
  const int heads_per_group = params.n_heads / n_groups;
  for (int sequence = 0; sequence < params.cache.n_sequences; ++sequence) {
    for (int group = 0; group < n_groups; ++group) {
      double* scores =
          result.scores + (std::int64_t{sequence} * n_groups + group) * params.max_tokens;
      const int length = length_of(params.cache, sequence, group);
      std::vector<double> sums(length, 0.0);
      for (int head = group * heads_per_group; head < (group + 1) * heads_per_group; ++head) {
        for (int query = 0; query < params.n_queries; ++query) {
          const std::vector<double> p =
              probabilities(params, sequence, query, head, result.largest_abs_score);
          for (std::size_t token = 0; token < p.size(); ++token) {
            sums[token] += p[token];
          }
        }
      }
      for (int token = 0; token < length; ++token) {
        scores[token] = (params.accumulate ? scores[token] : 0.0) + params.weight * sums[token];
      }
    }
  }
}

void pool_scores_reference(const PoolScoresParams& params, double* pooled) {
  for (int row = 0; row < params.n_sequences * params.n_heads; ++row) {
    const int length = params.lengths[params.lengths_per_head ? row : row / params.n_heads];
    const int n = length - params.n_window;
    const float* scores = params.scores + std::int64_t{row} * params.max_tokens;
    for (int token = 0; token < n; ++token) {
      double sum = 0.0;
      double largest = -INFINITY;
      for (int t = token - params.width / 2; t <= token + params.width / 2; ++t) {
        if (t >= 0 && t < n) {
          sum += scores[t];
          largest = std::max(largest, static_cast<double>(scores[t]));
        }
      }
      pooled[std::int64_t{row} * params.max_tokens + token] =
          params.pooling == Pooling::average ? sum / params.width : largest;
    }
  }
}

void select_tokens_reference(const SelectTokensParams& params) {
  for (int row = 0; row < params.n_sequences * params.n_heads; ++row) {
    const int length = params.lengths[params.lengths_per_head ? row : row / params.n_heads];
    const int budget = params.budgets != nullptr ? params.budgets[row] : params.budget;
    const auto rank = [&](int token) {
      if (token < params.n_sinks || token >= length - params.n_recent) {
        return static_cast<double>(INFINITY);
      }
      return params.scores != nullptr
                 ? static_cast<double>(params.scores[std::int64_t{row} * params.max_tokens + token])
                 : 0.0;
    };
    std::vector<int> order(length);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return rank(a) > rank(b); });
    order.resize(std::min(length, budget));
    std::sort(order.begin(), order.end());
    params.n_kept[row] = static_cast<std::int32_t>(order.size());
    std::copy(order.begin(), order.end(), params.kept + std::int64_t{row} * params.budget);
  }
}

}  // namespace kvfathom::kernels
