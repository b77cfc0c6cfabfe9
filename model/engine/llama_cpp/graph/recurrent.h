// Layers that keep a state per sequence instead of K and V (llama.cpp src/models/mamba-base.cpp,
// delta-net-base.cpp, 2026-09): what they compute, and how they read and write their state.
#pragma once

#include <cstdint>
#include <functional>

#include "model/engine/llama_cpp/graph/builder.h"

namespace kvfathom::llama_cpp {

/// Which states the pass reads: one row of indices for the sequences that run, and one, empty when
/// all sequences run, for those that only move.
struct StateInputs {
  TensorId running = kNoTensor;
  TensorId moving = kNoTensor;
};

[[nodiscard]] StateInputs state_inputs(Builder& b);

/// Tokens of one sequence in the pass.
[[nodiscard]] std::int64_t tokens_per_sequence(const Builder& b);

/// One state tensor of a layer: f32 [width, sequences], on the layer's device.
[[nodiscard]] TensorId state_tensor(Builder& b, std::int64_t width);

/// How the running sequences' states are read; by default rows are copied out.
using ReadState = std::function<TensorId(TensorId states, TensorId ids)>;
TensorId read_state(Builder& b, const StateInputs& in, TensorId all, const ReadState& read = {});

/// Copies `source` into the states of the running sequences.
void write_state(Builder& b, TensorId source, TensorId all);

/// [last d_conv - 1 columns of the past | x transposed], and the new last columns stored.
/// `x` is [channels, tokens, sequences].
TensorId convolution_input(
    Builder& b, const StateInputs& in, TensorId x, std::int64_t channels, std::int64_t d_conv);

/// Depthwise convolution over the result of convolution_input.
TensorId convolve(Builder& b, TensorId input, std::int64_t d_conv);

TensorId mamba_layer(Builder& b, const StateInputs& in, const Mamba& m, TensorId x);
TensorId mamba2_layer(Builder& b, const StateInputs& in, const Mamba2& m, TensorId x);

struct DeltaNetOperands {
  TensorId q = kNoTensor;  ///< [k_dim, heads, tokens, sequences]
  TensorId k = kNoTensor;
  TensorId v = kNoTensor;
  TensorId gate = kNoTensor;
  TensorId beta = kNoTensor;
  TensorId state = kNoTensor;  ///< [v_dim, v_dim, heads, sequences]
};

/// The fused delta rule; stores the new state in `all` and returns [v_dim, heads, tokens, seqs].
TensorId delta_rule(Builder& b, const DeltaNetOperands& x, TensorId all);

}  // namespace kvfathom::llama_cpp
