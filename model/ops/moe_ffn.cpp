#include "model/ops/moe_ffn.h"

#include <cmath>

namespace kvfathom {

double expected_active_experts(std::int64_t n_tokens,
                               std::int64_t n_experts,
                               std::int64_t n_chosen) {
  const auto experts = static_cast<double>(n_experts);
  const double missed = 1.0 - static_cast<double>(n_chosen) / experts;
  return experts * (1.0 - std::pow(missed, static_cast<double>(n_tokens)));
}

OpCost moe_ffn_cost(const MoeFfnShape& shape) {
  constexpr double kActivation = 2.0;
  constexpr double kSum = 4.0;  // of a float
  constexpr double kIndex = 4.0;
  const auto tokens = static_cast<double>(shape.n_tokens);
  const auto hidden = static_cast<double>(shape.hidden_size);
  const auto inner = static_cast<double>(shape.intermediate_size);
  const auto experts = static_cast<double>(shape.n_experts);
  const double pairs = tokens * static_cast<double>(shape.n_chosen);
  const std::int64_t n_up = shape.gated ? 2 : 1;
  const auto expert_bytes = static_cast<double>(
      shape.bytes_per_expert > 0
          ? shape.bytes_per_expert
          : n_up * shape.intermediate_size * row_bytes(shape.weights, shape.hidden_size) +
                shape.hidden_size * row_bytes(shape.weights, shape.intermediate_size));

  const double route_read = kActivation * hidden * (tokens + experts);
  const double gate_up_read = kActivation * hidden * tokens;
  const double down_read = kActivation * inner * pairs;
  const double combine_read = pairs * (kSum * hidden + kSum);
  const double route_written = pairs * (kIndex + kSum);
  const double group_written = kIndex * (pairs + experts + 1.0);
  const double inner_written = kActivation * inner * pairs;
  const double answers_written = kSum * hidden * pairs;
  return OpCost{.read = Bytes(shape.n_active_experts * expert_bytes + route_read + gate_up_read +
                              down_read + combine_read),
                .written = Bytes(route_written + group_written + inner_written + answers_written +
                                 kActivation * hidden * tokens),
                .flops = Flops(2.0 * tokens * hidden * experts +
                               pairs * 2.0 * static_cast<double>(n_up + 1) * hidden * inner +
                               2.0 * pairs * hidden),
                .launches = 5};
}

}  // namespace kvfathom
