#include "kernels/eviction_scores/eviction_error.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/eviction_scores/select_tokens.h"

namespace kvfathom::kernels {
namespace {

/// softmax over `tokens` of one query, times V.
std::vector<double> attend(const AttentionSample& sample,
                           int query,
                           std::span<const std::int32_t> tokens) {
  const std::size_t dim = static_cast<std::size_t>(sample.head_dim);
  const std::span<const float> q = sample.q.subspan(static_cast<std::size_t>(query) * dim, dim);
  std::vector<double> logits;
  for (const std::int32_t token : tokens) {
    const std::span<const float> k = sample.k.subspan(static_cast<std::size_t>(token) * dim, dim);
    logits.push_back(sample.softmax_scale * std::inner_product(q.begin(), q.end(), k.begin(), 0.0));
  }
  std::vector<double> out(dim, 0.0);
  if (tokens.empty()) {
    return out;
  }
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp(logits[i] - largest);
    sum += weight;
    for (std::size_t j = 0; j < dim; ++j) {
      out[j] += weight * sample.v[static_cast<std::size_t>(tokens[i]) * dim + j];
    }
  }
  for (double& x : out) {
    x /= sum;
  }
  return out;
}

}  // namespace

double eviction_output_error(const AttentionSample& sample, std::span<const std::int32_t> kept) {
  std::vector<std::int32_t> all(static_cast<std::size_t>(sample.n_tokens));
  std::iota(all.begin(), all.end(), 0);
  double difference = 0.0;
  double whole = 0.0;
  for (int query = 0; query < sample.n_queries; ++query) {
    const std::vector<double> full = attend(sample, query, all);
    const std::vector<double> less = attend(sample, query, kept);
    for (std::size_t j = 0; j < full.size(); ++j) {
      difference += (less[j] - full[j]) * (less[j] - full[j]);
      whole += full[j] * full[j];
    }
  }
  return whole > 0.0 ? std::sqrt(difference / whole) : 0.0;
}

std::vector<double> eviction_error_by_budget(const AttentionSample& sample,
                                             std::span<const float> scores,
                                             std::span<const int> budgets,
                                             int n_sinks,
                                             int n_recent) {
  std::vector<double> errors;
  for (const int budget : budgets) {
    const std::int32_t length = sample.n_tokens;
    std::vector<std::int32_t> kept(static_cast<std::size_t>(budget));
    std::int32_t n_kept = 0;
    SelectTokensParams select;
    select.n_sequences = select.n_heads = 1;
    select.max_tokens = sample.n_tokens;
    select.lengths = &length;
    select.scores = scores.data();
    select.n_sinks = n_sinks;
    select.n_recent = n_recent;
    select.budget = budget;
    select.kept = kept.data();
    select.n_kept = &n_kept;
    select_tokens_cpu(select, 1);
    errors.push_back(eviction_output_error(
        sample, std::span<const std::int32_t>(kept).first(static_cast<std::size_t>(n_kept))));
  }
  return errors;
}

}  // namespace kvfathom::kernels
