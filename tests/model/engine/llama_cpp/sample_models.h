// Real models by hand, as far as their graphs depend on it: independent of the file readers.
#pragma once

#include <map>
#include <string>

#include "model/architecture/model_spec.h"

namespace kvfathom::sample {

struct DenseShape {
  std::int64_t n_layers;
  std::int64_t hidden_size;
  std::int64_t intermediate_size;
  std::int64_t n_heads;
  std::int64_t n_kv_heads;
  std::int64_t head_dim;
  std::int64_t vocab_size;
};

inline ModelSpec dense(const std::string& architecture, const DenseShape& s) {
  ModelSpec m;
  m.architecture = architecture;
  m.hidden_size = s.hidden_size;
  m.vocab_size = s.vocab_size;
  Attention a;
  a.n_heads = s.n_heads;
  a.n_kv_heads = s.n_kv_heads;
  a.head_dim = s.head_dim;
  a.v_head_dim = s.head_dim;
  a.rope_dim = s.head_dim;
  LayerSpec layer;
  layer.mixer = a;
  layer.feed_forward = DenseFeedForward{s.intermediate_size, true, false};
  m.layers.assign(static_cast<std::size_t>(s.n_layers), layer);
  return m;
}

inline Attention& attention(LayerSpec& layer) {
  return std::get<Attention>(layer.mixer);
}

inline ModelSpec qwen3_30b_a3b() {
  ModelSpec m = dense("qwen3moe", {48, 2048, 6144, 32, 4, 128, 151936});
  for (LayerSpec& layer : m.layers) {
    attention(layer).qk_norm = QkNorm::per_head;
    MixtureOfExperts e;
    e.n_experts = 128;
    e.n_experts_per_token = 8;
    e.intermediate_size = 768;
    e.normalise_weights = true;
    layer.feed_forward = e;
  }
  return m;
}

inline ModelSpec gpt_oss_20b() {
  ModelSpec m = dense("gpt-oss", {24, 2880, 2880, 64, 8, 64, 201088});
  for (std::size_t i = 0; i < m.layers.size(); ++i) {
    Attention& a = attention(m.layers[i]);
    a.bias = a.output_bias = a.sinks = true;
    if (i % 2 == 0) {
      a.window_tokens = 128;
    }
    MixtureOfExperts e;
    e.n_experts = 32;
    e.n_experts_per_token = 4;
    e.intermediate_size = 2880;
    e.bias = true;
    e.gating = ExpertGating::softmax_over_chosen;
    m.layers[i].feed_forward = e;
  }
  return m;
}

inline ModelSpec gemma3_4b() {
  ModelSpec m = dense("gemma3", {34, 2560, 10240, 8, 4, 256, 262144});
  m.embedding_scale = 50.596;
  for (std::size_t i = 0; i < m.layers.size(); ++i) {
    Attention& a = attention(m.layers[i]);
    a.qk_norm = QkNorm::per_head;
    if (i % 6 != 5) {
      a.window_tokens = 1024;
    }
  }
  return m;
}

/// The first layer is dense, the others are mixtures of experts.
inline ModelSpec latent(const DenseShape& s,
                        const LatentAttention& a,
                        const MixtureOfExperts& moe) {
  ModelSpec m = dense("deepseek2", s);
  for (std::size_t i = 0; i < m.layers.size(); ++i) {
    m.layers[i].mixer = a;
    if (i > 0) {
      m.layers[i].feed_forward = moe;
    }
  }
  return m;
}

inline ModelSpec deepseek_v2_lite() {
  LatentAttention a;
  a.n_heads = 16;
  a.kv_lora_rank = 512;
  a.qk_nope_head_dim = 128;
  a.qk_rope_head_dim = 64;
  a.v_head_dim = 128;
  MixtureOfExperts e;
  e.n_experts = 64;
  e.n_experts_per_token = 6;
  e.n_shared_experts = 2;
  e.intermediate_size = 1408;
  e.shared_intermediate_size = 2816;
  return latent({27, 2048, 10944, 16, 1, 576, 102400}, a, e);
}

inline ModelSpec glm_4_7_flash() {
  LatentAttention a;
  a.n_heads = 20;
  a.q_lora_rank = 768;
  a.kv_lora_rank = 512;
  a.qk_nope_head_dim = 192;
  a.qk_rope_head_dim = 64;
  a.v_head_dim = 256;
  MixtureOfExperts e;
  e.n_experts = 64;
  e.n_experts_per_token = 4;
  e.n_shared_experts = 1;
  e.intermediate_size = 1536;
  e.shared_intermediate_size = 1536;
  e.gating = ExpertGating::sigmoid;
  e.router_bias = true;
  e.weights_scale = 1.8;
  return latent({47, 2048, 10240, 20, 1, 576, 154880}, a, e);
}

inline std::map<std::string, ModelSpec> models() {
  std::map<std::string, ModelSpec> all;
  all["llama-3.1-8b"] = dense("llama", {32, 4096, 14336, 32, 8, 128, 128256});
  all["mistral-7b-v0.3"] = dense("llama", {32, 4096, 14336, 32, 8, 128, 32768});
  all["qwen2.5-0.5b"] = dense("qwen2", {24, 896, 4864, 14, 2, 64, 151936});
  for (LayerSpec& layer : all["qwen2.5-0.5b"].layers) {
    attention(layer).bias = true;
  }
  all["qwen3-30b-a3b"] = qwen3_30b_a3b();
  all["gpt-oss-20b"] = gpt_oss_20b();
  all["gemma-3-4b"] = gemma3_4b();
  all["deepseek-v2-lite"] = deepseek_v2_lite();
  all["glm-4.7-flash"] = glm_4_7_flash();
  return all;
}

}  // namespace kvfathom::sample
