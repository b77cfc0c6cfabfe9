// Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) of a model: which matrices, how many values.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/architecture/model_spec.h"

namespace kvfathom {

/// Two matrices for every one adapted, {n_in, rank} and {rank, n_out}.
struct LoraShape {
  std::int64_t rank = 0;
  std::vector<std::string> targets;  ///< of "q", "k", "v", "o", "gate", "up", "down"; empty: all
  bool experts = true;               ///< every routed expert has an adapter of its own
};

/// The pair beside one matrix of the model.
struct LoraMatrix {
  std::int64_t layer = 0;
  std::int64_t a = 0;  ///< of {n_in, rank}: values of a shape, bytes of a file
  std::int64_t b = 0;  ///< of {rank, n_out}
  /// Over tensor-parallel ranks q, k, v, gate and up are cut by n_out, o and down by n_in; the
  /// other half of the pair is on every rank.
  enum class Cut : std::uint8_t { unknown, none, by_input, by_output } cut = Cut::unknown;
  std::string tensor = {};  ///< the matrix, as GGUF names it
};

/// The place of a pair beside a tensor of the model, which GGUF names so: its layer (of an
/// embedding the first, of the output head the last) and how it is cut. Sizes are the caller's.
[[nodiscard]] LoraMatrix lora_beside(std::string_view tensor, const ModelSpec& model);

/// Unsupported for a mixer that is not plain attention and for fused matrices, of which a
/// checkpoint adapts the parts or the whole; InputError for a target that is no word of the list or
/// that no layer has.
[[nodiscard]] std::vector<LoraMatrix> lora_matrices(const ModelSpec& model, const LoraShape& shape);

/// A device of a model that is cut: layers [first, end), one of so many ranks of them.
struct LoraRank {
  std::int64_t tensor_parallel = 1;
  std::int64_t first_layer = 0;
  std::int64_t end_layer = std::numeric_limits<std::int64_t>::max();
};

/// Values, or bytes, that such a device holds of `matrices`. Unsupported over several ranks where
/// KV heads are not as many on each, and for a matrix that no rule cuts.
[[nodiscard]] std::int64_t held_by(const LoraRank& rank,
                                   const ModelSpec& model,
                                   std::span<const LoraMatrix> matrices);

}  // namespace kvfathom
