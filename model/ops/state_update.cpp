#include "model/ops/state_update.h"

namespace kvfathom {
namespace {

constexpr double kFloat = 4.0;

}  // namespace

OpCost delta_net_cost(const DeltaNetShape& shape) {
  const auto key_dim = static_cast<double>(shape.key_dim);
  const auto value_dim = static_cast<double>(shape.value_dim);
  const auto sequences = static_cast<double>(shape.n_sequences);
  const double value_heads = sequences * static_cast<double>(shape.n_value_heads);
  const double key_heads = sequences * static_cast<double>(shape.n_key_heads);
  const double state = value_heads * key_dim * value_dim;
  const double inputs = (2.0 * key_heads * key_dim + value_heads * value_dim) * shape.element_bytes;
  const double decay = value_heads * (shape.decay_per_channel ? key_dim : 1.0) * kFloat;
  const double beta = value_heads * kFloat;
  return OpCost{
      .read = Bytes(state * shape.state_element_bytes + inputs + decay + beta),
      .written = Bytes(state * shape.state_element_bytes + value_heads * value_dim * kFloat),
      .flops = Flops(7.0 * state),
  };
}

OpCost mamba2_cost(const Mamba2Shape& shape) {
  const auto sequences = static_cast<double>(shape.n_sequences);
  const double heads = sequences * static_cast<double>(shape.n_heads);
  const double rows = heads * static_cast<double>(shape.head_dim);
  const double state = rows * static_cast<double>(shape.state_dim);
  const double groups = sequences * static_cast<double>(shape.n_groups);
  const double inputs =
      rows + heads + 2.0 * groups * static_cast<double>(shape.state_dim);     // x, dt, B, C
  const double per_head = 3.0 * static_cast<double>(shape.n_heads) * kFloat;  // a, dt_bias, d
  return OpCost{
      .read = Bytes(state * shape.state_element_bytes + inputs * shape.element_bytes + per_head),
      .written = Bytes(state * shape.state_element_bytes + rows * kFloat),
      .flops = Flops(5.0 * state),
  };
}

OpCost conv_state_cost(const ConvStateShape& shape) {
  const auto channels = static_cast<double>(shape.n_channels);
  const auto width = static_cast<double>(shape.width);
  const double rows = static_cast<double>(shape.n_sequences) * channels;
  const double state = rows * (width - 1.0) * kFloat;
  const double weights = channels * (width + (shape.bias ? 1.0 : 0.0)) * kFloat;
  return OpCost{
      .read = Bytes(state + weights + rows * shape.element_bytes),
      .written = Bytes(state + rows * kFloat),
      .flops = Flops(2.0 * rows * width),
  };
}

}  // namespace kvfathom
