// The models that the benchmarks of memory and latency price.
#pragma once

#include "model/architecture/model_spec.h"
#include "model/architecture/tensor_inventory.h"

namespace kvfathom {

/// Llama-3.1-70B: 80 layers, 64 query and 8 KV heads of 128.
inline ModelSpec llama_70b() {
  ModelSpec model;
  model.name = "llama-3.1-70b";
  model.architecture = "llama";
  model.hidden_size = 8192;
  model.vocab_size = 128256;
  model.trained_context_tokens = 131072;
  const Attention attention{
      .n_heads = 64, .n_kv_heads = 8, .head_dim = 128, .v_head_dim = 128, .rope_dim = 128};
  model.layers.assign(80,
                      {.mixer = attention, .feed_forward = DenseFeedForward{28672, true, false}});
  model.tensors = tensor_inventory(model);
  return model;
}

/// 80 layers of latent attention and experts.
inline ModelSpec latent_80_layers() {
  ModelSpec model;
  model.name = "80 latent layers";
  model.architecture = "deepseek2";
  model.hidden_size = 2048;
  model.vocab_size = 154880;
  model.trained_context_tokens = 202752;
  const LatentAttention latent{.n_heads = 20,
                               .q_lora_rank = 768,
                               .kv_lora_rank = 512,
                               .qk_nope_head_dim = 192,
                               .qk_rope_head_dim = 64,
                               .v_head_dim = 256,
                               .indexer = std::nullopt};
  const MixtureOfExperts experts{.n_experts = 64,
                                 .n_experts_per_token = 4,
                                 .n_shared_experts = 1,
                                 .intermediate_size = 1536,
                                 .shared_intermediate_size = 1536,
                                 .router_bias = true};
  model.layers.assign(80, {.mixer = latent, .feed_forward = experts});
  model.tensors = tensor_inventory(model);
  return model;
}

}  // namespace kvfathom
