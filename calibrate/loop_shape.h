// The transformers that our CPU kernels run from end to end, as shapes.
#pragma once

#include "model/architecture/model_spec.h"

namespace kvfathom::calibrate {

/// Latent attention in its absorbed form (MLA), without latents of queries.
struct LoopLatents {
  int kv_lora_rank = 0;  ///< 0: K and V are cached
  int qk_nope_head_dim = 0;
  int qk_rope_head_dim = 0;
  int v_head_dim = 0;
  friend bool operator==(const LoopLatents&, const LoopLatents&) = default;
};

/// Grouped-query or latent attention and a dense or routed feed-forward, in bf16.
struct LoopShape {
  int hidden_size = 1024;
  int n_layers = 8;
  int n_heads = 8;
  int n_kv_heads = 2;
  int head_dim = 128;
  int window_tokens = 0;         ///< attended to; 0: all
  LoopLatents latents = {};      ///< then n_kv_heads and head_dim are not looked at
  int intermediate_size = 2816;  ///< of the feed-forward, or of one expert
  int n_experts = 0;             ///< 0: dense
  int n_chosen = 0;
  int vocab_size = 8192;
  friend bool operator==(const LoopShape&, const LoopShape&) = default;
};

/// A model of that shape.
[[nodiscard]] ModelSpec spec_of(const LoopShape& shape);

/// The shape of a model whose layers are all equal and have no part that a loop leaves out, but for
/// what is small beside its products: norms of queries and keys, biases. Unsupported for any other.
[[nodiscard]] LoopShape loop_shape_of(const ModelSpec& model);

/// Bytes of one layer's weights in bf16.
[[nodiscard]] double layer_weight_bytes(const LoopShape& shape);

}  // namespace kvfathom::calibrate
