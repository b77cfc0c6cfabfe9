// Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) of a model: which matrices, how many values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/architecture/model_spec.h"

namespace kvfathom {

/// Two matrices for every one adapted, {n_in, rank} and {rank, n_out}.
struct LoraShape {
  std::int64_t rank = 0;
  std::vector<std::string> targets;  ///< of "q", "k", "v", "o", "gate", "up", "down"; empty: all
  std::int64_t tensor_parallel = 1;  ///< ranks that q, k, v, gate and up are cut over by n_out, o
                                     ///< and down by n_in; the other half is on every rank
  bool experts = true;               ///< every routed expert has an adapter of its own
};

/// Values that one rank holds of one adapter. Unsupported for a mixer that is not plain attention
/// and for fused matrices, of which a checkpoint adapts the parts or the whole; InputError for a
/// target that is no word of the list or that no layer has.
[[nodiscard]] std::int64_t lora_parameters(const ModelSpec& model, const LoraShape& shape);

}  // namespace kvfathom
