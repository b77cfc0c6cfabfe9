#include <cmath>

#include "kernels/state_update/state_update.h"

namespace kvfathom::kernels {
namespace {

/// One value head: S' and out of one sequence.
void delta_net_head(const DeltaNetParams& params,
                    int sequence,
                    int head,
                    const StateReference& result) {
  const int key_head = head / (params.n_value_heads / params.n_key_heads);
  const std::int64_t keys =
      (std::int64_t{sequence} * params.n_key_heads + key_head) * params.key_dim;
  const std::int64_t value_head = std::int64_t{sequence} * params.n_value_heads + head;
  const std::int64_t first = value_head * params.key_dim * params.value_dim;
  const auto k = [&](int i) {
    return static_cast<double>(element_at(params.element, params.k, keys + i));
  };
  const auto decay = [&](int i) {
    return static_cast<double>(params.decay_per_channel
                                   ? params.decay[value_head * params.key_dim + i]
                                   : params.decay[value_head]);
  };
  const double beta = params.beta[value_head];
  for (int j = 0; j < params.value_dim; ++j) {
    const double v = element_at(params.element, params.v, value_head * params.value_dim + j);
    double recalled = 0.0;  // k^T Diag(a) S: what the decayed state answers to k
    double recalled_magnitude = 0.0;
    for (int i = 0; i < params.key_dim; ++i) {
      const double product = k(i) * decay(i) * params.state[first + i * params.value_dim + j];
      recalled += product;
      recalled_magnitude += std::fabs(product);
    }
    double out = 0.0;
    double out_magnitude = 0.0;
    for (int i = 0; i < params.key_dim; ++i) {
      const std::int64_t at = first + i * params.value_dim + j;
      const double decayed = decay(i) * params.state[at];
      const double q = params.q_scale * element_at(params.element, params.q, keys + i);
      result.state[at] = decayed - beta * k(i) * recalled + beta * k(i) * v;
      result.state_magnitude[at] =
          std::fabs(decayed) + std::fabs(beta * k(i)) * (recalled_magnitude + std::fabs(v));
      out += q * result.state[at];
      out_magnitude += std::fabs(q) * result.state_magnitude[at];
    }
    result.out[value_head * params.value_dim + j] = out;
    result.out_magnitude[value_head * params.value_dim + j] = out_magnitude;
  }
}

void mamba2_head(const Mamba2Params& params, int sequence, int head, const StateReference& result) {
  const std::int64_t row = std::int64_t{sequence} * params.n_heads + head;
  const int group = head / (params.n_heads / params.n_groups);
  const std::int64_t shared = (std::int64_t{sequence} * params.n_groups + group) * params.state_dim;
  const double raw =
      static_cast<double>(element_at(params.element, params.dt, row)) + params.dt_bias[head];
  const double dt = std::log1p(std::exp(raw));
  const double exponent = dt * params.a[head];
  // An exponential is off by its argument's rounding: the error grows with the argument.
  const double growth = (1.0 + std::fabs(raw)) * (1.0 + std::fabs(exponent));
  for (int p = 0; p < params.head_dim; ++p) {
    const double x = element_at(params.element, params.x, row * params.head_dim + p);
    double out = params.d[head] * x;
    double out_magnitude = std::fabs(out);
    for (int n = 0; n < params.state_dim; ++n) {
      const std::int64_t at = (row * params.head_dim + p) * params.state_dim + n;
      const double kept = std::exp(exponent) * params.state[at];
      const double added = dt * x * element_at(params.element, params.b, shared + n);
      const double c = element_at(params.element, params.c, shared + n);
      result.state[at] = kept + added;
      result.state_magnitude[at] = growth * (std::fabs(kept) + std::fabs(added));
      out += c * result.state[at];
      out_magnitude += std::fabs(c) * result.state_magnitude[at];
    }
    result.out[row * params.head_dim + p] = out;
    result.out_magnitude[row * params.head_dim + p] = out_magnitude;
  }
}

}  // namespace

void delta_net_reference(const DeltaNetParams& params, const StateReference& result) {
  for (int sequence = 0; sequence < params.n_sequences; ++sequence) {
    for (int head = 0; head < params.n_value_heads; ++head) {
      delta_net_head(params, sequence, head, result);
    }
  }
}

void mamba2_reference(const Mamba2Params& params, const StateReference& result) {
  for (int sequence = 0; sequence < params.n_sequences; ++sequence) {
    for (int head = 0; head < params.n_heads; ++head) {
      mamba2_head(params, sequence, head, result);
    }
  }
}

void conv_state_reference(const ConvStateParams& params, const StateReference& result) {
  for (int sequence = 0; sequence < params.n_sequences; ++sequence) {
    for (int channel = 0; channel < params.n_channels; ++channel) {
      const std::int64_t row = std::int64_t{sequence} * params.n_channels + channel;
      const std::int64_t state = row * (params.width - 1);
      double sum = params.bias != nullptr ? params.bias[channel] : 0.0;
      double magnitude = std::fabs(sum);
      for (int i = 0; i < params.width; ++i) {
        const double x = i < params.width - 1 ? params.state[state + i]
                                              : element_at(params.element, params.x, row);
        const double product = params.weight[std::int64_t{channel} * params.width + i] * x;
        sum += product;
        magnitude += std::fabs(product);
        if (i > 0) {
          result.state[state + i - 1] = x;
        }
      }
      result.out[row] = sum / (1.0 + std::exp(-sum));
      // silu's slope is below 1.1; its exponential is off by its argument's rounding.
      result.out_magnitude[row] =
          1.1 * magnitude + std::fabs(result.out[row]) * (1.0 + std::fabs(sum));
    }
  }
}

}  // namespace kvfathom::kernels
