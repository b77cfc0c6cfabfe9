// What a mixture-of-experts feed-forward layer asks of the machine.
#pragma once

#include <cstdint>

#include "model/dtype.h"
#include "model/ops/op_cost.h"

namespace kvfathom {

struct MoeFfnShape {
  std::int64_t n_tokens = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t n_experts = 0;
  std::int64_t n_chosen = 0;      ///< experts per token
  double n_active_experts = 0.0;  ///< chosen by at least one token
  DType weights = DType::bf16;
  bool gated = true;                  ///< gate and up, not up alone
  std::int64_t bytes_per_expert = 0;  ///< as stored, where its matrices differ in type; 0: by type
};

/// Experts that `n_tokens` choose at least once, where every choice is equally likely:
/// n_experts (1 - (1 - n_chosen / n_experts)^n_tokens).
[[nodiscard]] double expected_active_experts(std::int64_t n_tokens,
                                             std::int64_t n_experts,
                                             std::int64_t n_chosen);

/// Five launches: route, group, gate and up with the activation, down, combine. Active experts'
/// weights pass once; what the launches hand to each other is written and read.
[[nodiscard]] OpCost moe_ffn_cost(const MoeFfnShape& shape);

}  // namespace kvfathom
