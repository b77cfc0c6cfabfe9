#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/elementwise/elementwise.h"

namespace kvfathom::kernels {
namespace {

double round_to(Element element, double value) {
  const auto single = static_cast<float>(value);
  return element == Element::f32   ? single
         : element == Element::f16 ? to_f32(to_f16(single))
                                   : to_f32(to_bf16(single));
}

}  // namespace

void rms_norm_reference(const RmsNormParams& params, double* out, double* residual) {
  const int n = params.n_columns;
  std::vector<double> y(static_cast<std::size_t>(n));
  for (std::int64_t row = 0; row < params.n_rows; ++row) {
    double squares = 0.0;
    for (int i = 0; i < n; ++i) {
      y[i] = element_at(params.element, params.x, row * n + i);
      if (params.residual != nullptr) {
        y[i] += element_at(params.element, params.residual, row * n + i);
        if (residual != nullptr) {
          residual[row * n + i] = y[i];
        }
        y[i] = round_to(params.element, y[i]);
      }
      squares += y[i] * y[i];
    }
    const double inverse = 1.0 / std::sqrt(squares / n + static_cast<double>(params.epsilon));
    for (int i = 0; i < n; ++i) {
      const double weight =
          static_cast<double>(params.weight_offset) + element_at(params.element, params.weight, i);
      out[row * n + i] = y[i] * inverse * weight;
    }
  }
}

void add_reference(const AddParams& params, double* out) {
  for (std::int64_t i = 0; i < params.n; ++i) {
    out[i] = static_cast<double>(element_at(params.element, params.a, i)) +
             element_at(params.element, params.b, i);
  }
}

void gated_activation_reference(const GatedActivationParams& params,
                                const GatedActivationReference& result) {
  for (std::int64_t row = 0; row < params.n_rows; ++row) {
    for (int i = 0; i < params.n_columns; ++i) {
      const std::int64_t from = row * params.input_stride + i;
      const std::int64_t to = row * params.n_columns + i;
      const double gate = element_at(params.element, params.gate, from);
      const double up = params.up != nullptr ? element_at(params.element, params.up, from) : 1.0;
      const double power = params.activation == Activation::relu_squared ? std::fabs(gate) : 1.0;
      result.out[to] = activation_reference(params.activation, gate) * up;
      result.magnitude[to] = std::fabs(gate) * power * std::fabs(up);
    }
  }
}

void sample_reference(const SampleParams& params, const SampleReference& result) {
  const int n = params.vocab_size;
  for (int row = 0; row < params.n_rows; ++row) {
    std::vector<double> logits(static_cast<std::size_t>(n));
    for (int i = 0; i < n; ++i) {
      logits[i] = element_at(params.element, params.logits, static_cast<std::int64_t>(row) * n + i);
    }
    std::vector<int> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(
        order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
    double* shares = result.shares + static_cast<std::int64_t>(row) * n;
    std::fill_n(shares, n, 0.0);
    if (params.temperature == 0.0F) {
      result.tokens[row] = order[0];
      shares[order[0]] = 1.0;
      continue;
    }
    const int wanted = params.top_k > 0 ? std::min(params.top_k, n) : n;
    const double least_logit = logits[order[wanted - 1]];
    double mass = 0.0;
    for (int i = 0; i < n; ++i) {
      if (logits[i] >= least_logit) {
        shares[i] = std::exp((logits[i] - logits[order[0]]) / params.temperature);
        mass += shares[i];
      }
    }
    double reached = 0.0;
    double last_kept = -INFINITY;
    for (const int token : order) {
      if (reached >= params.top_p * mass && logits[token] < last_kept) {
        shares[token] = 0.0;
      } else if (shares[token] > 0.0) {
        reached += shares[token];
        last_kept = logits[token];
      }
    }
    double cumulative = 0.0;
    result.tokens[row] = -1;
    for (int i = 0; i < n; ++i) {
      shares[i] /= reached;
      cumulative += shares[i];
      if (result.tokens[row] < 0 && cumulative > params.uniform[row]) {
        result.tokens[row] = i;
      }
    }
    if (result.tokens[row] < 0) {  // the shares add up to a hair less than 1
      result.tokens[row] = order[0];
    }
  }
}

}  // namespace kvfathom::kernels
