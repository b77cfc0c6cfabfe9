// One model of each decoder family by hand, as far as its graph depends on it.
#pragma once

#include "tests/model/engine/llama_cpp/sample_models.h"

namespace kvfathom::sample {

inline MixtureOfExperts mixture(std::int64_t n, std::int64_t used, std::int64_t width) {
  MixtureOfExperts e;
  e.n_experts = n;
  e.n_experts_per_token = used;
  e.intermediate_size = width;
  return e;
}

template <typename Change>
ModelSpec with(ModelSpec m, Change change) {
  for (std::size_t i = 0; i < m.layers.size(); ++i) {
    change(m.layers[i], i);
  }
  return m;
}

inline ModelSpec with_experts(ModelSpec m, const MixtureOfExperts& e, std::size_t first = 0) {
  return with(std::move(m), [&](LayerSpec& layer, std::size_t i) {
    if (i >= first) {
      layer.feed_forward = e;
    }
  });
}

/// Every layer but each `period`-th has a window.
inline ModelSpec with_windows(ModelSpec m, std::int64_t tokens, std::size_t period) {
  return with(std::move(m), [&](LayerSpec& layer, std::size_t i) {
    if (i % period != period - 1) {
      attention(layer).window_tokens = tokens;
    }
  });
}

/// Without a gate, everything with a bias: GPT-2, StarCoder2, Phi-2.
inline ModelSpec biased(ModelSpec m) {
  return with(std::move(m), [](LayerSpec& layer, std::size_t) {
    attention(layer).bias = attention(layer).output_bias = true;
    auto& ff = std::get<DenseFeedForward>(layer.feed_forward);
    ff.gated = false;
    ff.bias = true;
  });
}

inline ModelSpec parallel(ModelSpec m) {
  return with(std::move(m), [](LayerSpec& layer, std::size_t) {
    layer.pre_feed_forward_norm = false;
    layer.parallel_residual = true;
  });
}

inline ModelSpec post_normed(ModelSpec m, bool pre) {
  return with(std::move(m), [pre](LayerSpec& layer, std::size_t) {
    layer.pre_mixer_norm = layer.pre_feed_forward_norm = pre;
    layer.post_mixer_norm = layer.post_feed_forward_norm = true;
  });
}

inline ModelSpec qk_normed(ModelSpec m, QkNorm norm) {
  return with(std::move(m),
              [norm](LayerSpec& layer, std::size_t) { attention(layer).qk_norm = norm; });
}

inline ModelSpec qkv_biased(ModelSpec m) {
  return with(std::move(m), [](LayerSpec& layer, std::size_t) { attention(layer).bias = true; });
}

inline ModelSpec granite_scaled(ModelSpec m) {
  m.embedding_scale = 12.0;
  m.residual_scale = 0.22;
  m.logit_scale = 16.0;
  return m;
}

/// DeepSeek V3 and its like: three dense layers, then experts with a shared one.
inline ModelSpec deepseek_like(const std::string& architecture,
                               const DenseShape& s,
                               std::int64_t q_rank,
                               std::int64_t nope,
                               std::int64_t v_head,
                               std::int64_t groups) {
  LatentAttention a;
  a.n_heads = s.n_heads;
  a.q_lora_rank = q_rank;
  a.kv_lora_rank = 512;
  a.qk_nope_head_dim = nope;
  a.qk_rope_head_dim = 64;
  a.v_head_dim = v_head;
  if (architecture != "deepseek2") {
    a.indexer = Indexer{architecture == "glm-dsa" ? 32 : 64, 128, 2048};
  }
  MixtureOfExperts e = mixture(256, 8, 2048);
  e.n_shared_experts = 1;
  e.shared_intermediate_size = 2048;
  e.gating = ExpertGating::sigmoid;
  e.router_bias = e.normalise_weights = true;
  e.weights_scale = 2.5;
  e.n_expert_groups = groups;
  e.n_expert_groups_used = groups / 2 + 1;
  if (groups > 1) {
    e.n_expert_groups_used = groups / 2;
  }
  ModelSpec m = with_experts(dense(architecture, s), e, 3);
  return with(std::move(m), [&a](LayerSpec& layer, std::size_t) { layer.mixer = a; });
}

inline std::map<std::string, ModelSpec> families() {
  std::map<std::string, ModelSpec> all;
  all["mixtral-8x7b"] =
      with_experts(dense("llama", {32, 4096, 14336, 32, 8, 128, 32000}), mixture(8, 2, 14336));
  MixtureOfExperts scout = mixture(16, 1, 8192);
  scout.n_shared_experts = 1;
  scout.shared_intermediate_size = 8192;
  all["llama-4-scout"] = with_windows(
      with_experts(dense("llama4", {48, 5120, 16384, 40, 8, 128, 202048}), scout), 8192, 4);
  all["llama-4-scout"] = with(
      qk_normed(std::move(all["llama-4-scout"]), QkNorm::per_head),
      [](LayerSpec& layer, std::size_t i) { attention(layer).rope_dim = i % 4 == 3 ? 0 : 128; });
  all["llama-4-scout"].attention_temperature = true;
  MixtureOfExperts qwen = mixture(60, 4, 1408);
  qwen.n_shared_experts = 1;
  qwen.shared_intermediate_size = 5632;
  qwen.shared_expert_gate = true;
  all["qwen1.5-moe-a2.7b"] =
      qkv_biased(with_experts(dense("qwen2moe", {24, 2048, 5632, 16, 16, 128, 151936}), qwen));
  all["qwen3-8b"] =
      qk_normed(dense("qwen3", {36, 4096, 12288, 32, 8, 128, 151936}), QkNorm::per_head);
  all["phi2"] = parallel(biased(dense("phi2", {32, 2560, 10240, 32, 32, 80, 51200})));
  all["phi2"].output_bias = true;
  all["phi2"].fused_qkv = true;
  all["phi4"] = dense("phi3", {40, 5120, 17920, 40, 10, 128, 100352});
  all["ministral-3-3b"] = dense("mistral3", {26, 3072, 9216, 32, 8, 128, 131072});
  all["ministral-3-3b"].attention_temperature = true;
  all["gemma-2b"] = dense("gemma", {18, 2048, 16384, 8, 1, 256, 256000});
  all["gemma2-9b"] = with_windows(
      post_normed(dense("gemma2", {42, 3584, 14336, 16, 8, 256, 256000}), true), 4096, 2);
  all["gemma2-9b"].attention_softcap = all["gemma2-9b"].logit_softcap = true;
  for (const char* gemma : {"gemma-2b", "gemma2-9b"}) {
    all[gemma].embedding_scale = 50.0;
  }
  all["glm4-9b"] =
      post_normed(qkv_biased(dense("glm4", {40, 4096, 13696, 32, 2, 128, 151552})), true);
  MixtureOfExperts air = mixture(128, 8, 1408);
  air.n_shared_experts = 1;
  air.shared_intermediate_size = 1408;
  air.gating = ExpertGating::sigmoid;
  air.router_bias = air.normalise_weights = true;
  all["glm-4.5-air"] =
      qkv_biased(with_experts(dense("glm4moe", {46, 4096, 10944, 96, 8, 128, 151552}), air, 1));
  all["command-r7b"] = with(
      with_windows(parallel(dense("cohere2", {32, 4096, 14336, 32, 8, 128, 256000})), 4096, 4),
      [](LayerSpec& layer, std::size_t i) { attention(layer).rope_dim = i % 4 == 3 ? 0 : 128; });
  all["aya-23-8b"] = parallel(dense("command-r", {32, 4096, 14336, 32, 8, 128, 256000}));
  for (const char* cohere : {"command-r7b", "aya-23-8b"}) {
    all[cohere].logit_scale = 0.0625;
  }
  all["olmo2-7b"] =
      qk_normed(post_normed(dense("olmo2", {32, 4096, 11008, 32, 32, 128, 100352}), false),
                QkNorm::all_heads);
  all["olmo3.1-32b"] = with_windows(
      qk_normed(post_normed(dense("olmo2", {64, 5120, 27648, 40, 8, 128, 100278}), false),
                QkNorm::all_heads),
      4096,
      4);
  all["falcon-7b"] = with(parallel(dense("falcon", {32, 4544, 18176, 71, 1, 64, 65024})),
                          [](LayerSpec& layer, std::size_t) {
                            std::get<DenseFeedForward>(layer.feed_forward).gated = false;
                          });
  all["granite-4.1-8b"] = granite_scaled(dense("granite", {40, 4096, 12800, 32, 8, 128, 100352}));
  all["granite-3.1-3b-a800m"] = granite_scaled(
      with_experts(dense("granitemoe", {32, 1536, 512, 24, 8, 64, 49155}), mixture(40, 8, 512)));
  MixtureOfExperts minimax = mixture(256, 8, 1536);
  minimax.gating = ExpertGating::sigmoid;
  minimax.router_bias = true;
  all["minimax-m2.5"] =
      qk_normed(with_experts(dense("minimax-m2", {62, 3072, 1536, 48, 8, 128, 200064}), minimax),
                QkNorm::all_heads);
  all["starcoder2-7b"] = biased(dense("starcoder2", {32, 4608, 18432, 36, 4, 128, 49152}));
  all["stablelm-2-1.6b"] = qkv_biased(dense("stablelm", {24, 2048, 5632, 32, 32, 64, 100352}));
  all["gpt2"] = with(biased(dense("gpt2", {12, 768, 3072, 12, 12, 64, 50257})),
                     [](LayerSpec& layer, std::size_t) { attention(layer).rope_dim = 0; });
  all["deepseek-v3"] =
      deepseek_like("deepseek2", {61, 7168, 18432, 128, 1, 576, 129280}, 1536, 128, 128, 8);
  all["deepseek-v3.2"] =
      deepseek_like("deepseek32", {61, 7168, 18432, 128, 1, 576, 129280}, 1536, 128, 128, 8);
  all["glm-5"] = deepseek_like("glm-dsa", {78, 6144, 12288, 64, 1, 576, 154880}, 2048, 192, 256, 1);
  return all;
}

}  // namespace kvfathom::sample
