#include "model/engine/llama_cpp/engine_view.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace kvfathom::llama_cpp {
namespace {

/// Architectures whose loader sets a window type (src/models/*.cpp, 2026-08). All others, among
/// them llama, mistral3, phi3, qwen2 and starcoder2, attend to the whole context whatever the
/// file's window key says.
constexpr auto kReadWindows = std::to_array<std::string_view>({
    "afmoe",       "cohere2",      "cohere2moe", "deepseek4", "dots3note",    "exaone-moe",
    "exaone4",     "gemma2",       "gemma3",     "gemma3n",   "gemma4",       "gpt-oss",
    "granite_swa", "laguna",       "lfm2",       "lfm2moe",   "llama4",       "mellum",
    "mimo2",       "muse-glimmer", "olmo2",      "plamo3",    "smallthinker", "step35",
});

Attention expanded(const LatentAttention& a) {
  return {.n_heads = a.n_heads,
          .n_kv_heads = a.n_heads,
          .head_dim = a.qk_nope_head_dim + a.qk_rope_head_dim,
          .v_head_dim = a.v_head_dim,
          .rope_dim = a.qk_rope_head_dim,
          .kv_lora_rank = a.kv_lora_rank,
          .q_lora_rank = a.q_lora_rank};
}

}  // namespace

CacheScheme latent_scheme(CacheScheme requested, const Behaviours& behaviours) {
  if (requested == CacheScheme::mla_with_v || requested == CacheScheme::mla_expanded) {
    return requested;
  }
  if (!behaviours.mla) {
    return CacheScheme::mla_expanded;
  }
  return behaviours.v_less_mla ? CacheScheme::mla_latent : CacheScheme::mla_with_v;
}

ModelSpec engine_view(const ModelSpec& model, CacheScheme latent_scheme) {
  ModelSpec view = model;
  std::erase_if(view.tensors, [](const Tensor& t) {
    return !t.name.starts_with("blk.0.") && !t.name.starts_with("blk.1.");
  });
  const bool reads_windows =
      std::ranges::find(kReadWindows, model.architecture) != kReadWindows.end();
  for (LayerSpec& layer : view.layers) {
    if (auto* attention = std::get_if<Attention>(&layer.mixer);
        attention != nullptr && !reads_windows) {
      attention->window_tokens.reset();
    }
    if (const auto* latent = std::get_if<LatentAttention>(&layer.mixer);
        latent != nullptr && latent_scheme == CacheScheme::mla_expanded) {
      layer.mixer = expanded(*latent);
    }
  }
  return view;
}

}  // namespace kvfathom::llama_cpp
