// The common shape of a decoder layer: attention, then a feed-forward, each with its norms and
// residual. Most families are this with a few traits.
#pragma once

#include <functional>

#include "model/engine/llama_cpp/graph/arch/arch.h"

namespace kvfathom::llama_cpp {

/// How a family's experts are weighted where llama.cpp's graph fixes it, whatever the file says.
enum class Routing : std::uint8_t {
  of_the_model,
  softmax_normalised,
  softmax_plain,
  normalised,         ///< by any gating
  sigmoid_on_inputs,  ///< weights scale what goes into the experts (Llama-4)
};

/// What llama.cpp's graph of a family does beyond what the model itself says.
struct DecoderTraits {
  NormKind norm = NormKind::rms;
  bool windows_apart = false;   ///< window layers keep a cache of their own
  bool scaled_queries = false;  ///< a scale on q instead of on the scores
  /// Rotated layers have a weightless RMSNorm on q and k, the others the temperature (Llama-4).
  bool norm_after_rotation = false;
  Activation activation = Activation::silu;
  bool merged_gate_up = false;  ///< one matrix for gate and up
  bool fused_qkv = false;       ///< where the source holds no tensors to tell
  bool residual_first = false;  ///< the feed-forward is added to the residual, not it to that
  Routing routing = Routing::of_the_model;
  /// Post-norm of the feed-forward belongs to no layer when backends are assigned.
  bool free_post_norm = false;
};

/// Inputs that all layers share.
struct DecoderInputs {
  TensorId x = kNoTensor;
  TensorId positions = kNoTensor;
  TensorId temperature = kNoTensor;
  CacheInputs full;
  CacheInputs window;
  TensorId outputs = kNoTensor;
  bool fused_qkv = false;
};
/// Norm, attention, residual, norm, feed-forward, residual.
void build_sequential(Builder& b, const DecoderTraits& traits);
/// The same with a first step of its own: `enter` makes the first layer's input.
void build_sequential(Builder& b,
                      const DecoderTraits& traits,
                      const std::function<TensorId(const DecoderInputs&)>& enter);

/// Attention and feed-forward read the same input; `sum` joins them in the family's order.
using JoinBlocks = TensorId (*)(TensorGraph&, TensorId attention, TensorId forward, TensorId input);
void build_parallel(Builder& b, const DecoderTraits& traits, JoinBlocks join);

[[nodiscard]] DecoderInputs decoder_inputs(Builder& b, const DecoderTraits& traits);

/// From the normalised input of layer `i` to its attention's projected result.
TensorId decoder_attention(
    Builder& b, const DecoderTraits& traits, const DecoderInputs& in, std::size_t i, TensorId x);

/// Dense, or experts with the shared ones beside them.
TensorId decoder_feed_forward(Builder& b,
                              const DecoderTraits& traits,
                              const FeedForward& ff,
                              TensorId x);

}  // namespace kvfathom::llama_cpp
