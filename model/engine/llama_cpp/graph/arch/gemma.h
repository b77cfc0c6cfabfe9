// What Gemma-3n and Gemma 4 have in common: layers that read an earlier layer's K and V, caches
// with and without windows, and an embedding of each token for each layer.
#pragma once

#include "model/engine/llama_cpp/graph/builder.h"

namespace kvfathom::llama_cpp {

struct GemmaCaches {
  CacheInputs full;
  CacheInputs window;
};

[[nodiscard]] GemmaCaches gemma_caches(Builder& b);

/// Attention with norms on q, k and v of each head; a layer with SharedAttention makes q only.
[[nodiscard]] TensorId gemma_attention(
    Builder& b, std::size_t layer, const GemmaCaches& caches, TensorId x, TensorId pos);

/// [width, tokens, layers]: every layer's own embedding of the tokens; its table is on the host.
[[nodiscard]] TensorId per_layer_inputs(Builder& b, TensorId x);

/// x[:, :, index] of a contiguous 3-D tensor.
[[nodiscard]] TensorId slice(TensorGraph& g, TensorId x, std::int64_t index);

}  // namespace kvfathom::llama_cpp
