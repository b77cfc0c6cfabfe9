#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/moe_ffn/moe_ffn.h"

namespace kvfathom::kernels {
namespace {

struct Dot {
  double sum = 0.0;
  double magnitude = 0.0;
};
Dot dot(const std::vector<double>& a, const std::vector<double>& b) {
  Dot result;
  for (std::size_t i = 0; i < a.size(); ++i) {
    result.sum += a[i] * b[i];
    result.magnitude += std::fabs(a[i] * b[i]);
  }
  return result;
}

std::vector<double> activations(WeightFormat format, const std::uint16_t* from, int n) {
  std::vector<double> values;
  for (int i = 0; i < n; ++i) {
    values.push_back(activation_to_f32(format, from[i]));
  }
  return values;
}

std::vector<double> expert_row(const MoeFfnParams& p,
                               const std::byte* experts,
                               std::int64_t row,
                               int k) {
  return decode_weights(p.format, k, experts + row * weight_row_bytes(p.format, k));
}

void choose(const MoeFfnParams& p,
            int token,
            const std::vector<double>& x,
            const MoeFfnReference& r) {
  std::vector<double> scores;
  double largest_magnitude = 0.0;
  for (int expert = 0; expert < p.n_experts; ++expert) {
    const auto router = activations(
        p.format, p.router + static_cast<std::int64_t>(expert) * p.hidden_size, p.hidden_size);
    const Dot logit = dot(x, router);
    scores.push_back(logit.sum);
    largest_magnitude = std::max(largest_magnitude, logit.magnitude);
  }
  r.router_magnitude[token] = largest_magnitude;
  if (p.score == RouterScore::softmax) {
    const double largest = *std::max_element(scores.begin(), scores.end());
    double sum = 0.0;
    for (double& score : scores) {
      score = std::exp(score - largest);
      sum += score;
    }
    for (double& score : scores) {
      score /= sum;
    }
  } else {
    for (double& score : scores) {
      score = 1.0 / (1.0 + std::exp(-score));
    }
  }
  std::vector<bool> taken(scores.size());
  double sum = 0.0;
  for (int slot = 0; slot < p.n_chosen; ++slot) {
    int best = -1;
    double best_score = 0.0;
    for (int expert = 0; expert < p.n_experts; ++expert) {
      const double biased =
          scores[expert] + (p.choice_bias != nullptr ? p.choice_bias[expert] : 0.0F);
      if (!taken[expert] && (best < 0 || biased > best_score)) {
        best = expert;
        best_score = biased;
      }
    }
    taken[best] = true;
    r.experts[token * p.n_chosen + slot] = best;
    r.weights[token * p.n_chosen + slot] = scores[best];
    sum += scores[best];
  }
  for (int slot = 0; slot < p.n_chosen; ++slot) {
    r.weights[token * p.n_chosen + slot] *=
        static_cast<double>(p.routed_scaling) / (p.normalise ? sum : 1.0);
  }
}

void add_expert(const MoeFfnParams& p,
                int token,
                int slot,
                const std::vector<double>& x,
                const MoeFfnReference& r) {
  const std::int64_t expert = r.experts[token * p.n_chosen + slot];
  const double weight = r.weights[token * p.n_chosen + slot];
  const int n = p.intermediate_size;
  std::vector<double> inner;
  std::vector<double> inner_magnitude;
  for (int i = 0; i < n; ++i) {
    const Dot gate = dot(x, expert_row(p, p.gate_up, expert * 2 * n + i, p.hidden_size));
    const Dot up = dot(x, expert_row(p, p.gate_up, expert * 2 * n + n + i, p.hidden_size));
    const double activated = activation_reference(p.activation, gate.sum);
    const double slope =
        p.activation == Activation::relu_squared ? 2.0 * std::fabs(gate.sum) : 1.13;
    inner.push_back(activated * up.sum);
    inner_magnitude.push_back(slope * gate.magnitude * std::fabs(up.sum) +
                              std::fabs(activated) * up.magnitude);
  }
  for (int i = 0; i < p.hidden_size; ++i) {
    const auto down = expert_row(p, p.down, expert * p.hidden_size + i, n);
    const std::int64_t at = static_cast<std::int64_t>(token) * p.hidden_size + i;
    const Dot answer = dot(inner, down);
    r.out[at] += weight * answer.sum;
    r.magnitude[at] += std::fabs(weight) * answer.magnitude;
    r.inner_magnitude[at] += std::fabs(weight) * dot(inner_magnitude, down).magnitude;
  }
}

}  // namespace

void moe_ffn_reference(const MoeFfnParams& params, const MoeFfnReference& result) {
  check_moe_ffn(params);
  const std::int64_t n = static_cast<std::int64_t>(params.n_tokens) * params.hidden_size;
  std::fill_n(result.out, n, 0.0);
  std::fill_n(result.magnitude, n, 0.0);
  std::fill_n(result.inner_magnitude, n, 0.0);
  for (int token = 0; token < params.n_tokens; ++token) {
    const auto x = activations(params.format,
                               params.x + static_cast<std::int64_t>(token) * params.hidden_size,
                               params.hidden_size);
    choose(params, token, x, result);
    for (int slot = 0; slot < params.n_chosen; ++slot) {
      add_expert(params, token, slot, x, result);
    }
  }
}

}  // namespace kvfathom::kernels
