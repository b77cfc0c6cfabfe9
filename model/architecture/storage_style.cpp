#include "model/architecture/storage_style.h"

#include <algorithm>
#include <array>

namespace kvfathom {
namespace {

constexpr std::string_view kAfterAttention = "post_attention_norm.weight";

// Names and shapes as llama.cpp's loader asks for them (src/models/*.cpp, August 2026).
constexpr std::array kStyles{
    StorageStyle{.architecture = "phi3", .fused_qkv = true, .fused_gate_up = true},
    StorageStyle{.architecture = "chatglm", .fused_qkv = true, .fused_gate_up = true},
    StorageStyle{.architecture = "glm4", .fused_gate_up = true},
    StorageStyle{.architecture = "gpt2", .fused_qkv = true},
    StorageStyle{.architecture = "starcoder", .fused_qkv = true},
    StorageStyle{.architecture = "gptneox", .fused_qkv = true},
    StorageStyle{.architecture = "falcon", .fused_qkv = true, .second_attention_norm = true},
    StorageStyle{.architecture = "gpt-oss", .feed_forward_norm = kAfterAttention},
    StorageStyle{.architecture = "glm4moe", .feed_forward_norm = kAfterAttention},
    StorageStyle{.architecture = "seed_oss", .feed_forward_norm = kAfterAttention},
    StorageStyle{.architecture = "qwen3next",
                 .feed_forward_norm = kAfterAttention,
                 .joint_beta_alpha = true},
    StorageStyle{.architecture = "qwen35", .feed_forward_norm = kAfterAttention},
    StorageStyle{.architecture = "qwen35moe", .feed_forward_norm = kAfterAttention},
    // A layer of these holds one part only, and so one norm, under one name.
    StorageStyle{.architecture = "nemotron_h", .feed_forward_norm = "attn_norm.weight"},
    StorageStyle{.architecture = "nemotron_h_moe", .feed_forward_norm = "attn_norm.weight"},
    // The converter leaves the suffix out here.
    StorageStyle{.architecture = "falcon-h1", .feed_forward_norm = "ffn_norm"},
    StorageStyle{.architecture = "lfm2", .output_norm = "token_embd_norm"},
    StorageStyle{.architecture = "lfm2moe", .output_norm = "token_embd_norm"},
    StorageStyle{.architecture = "gemma3n", .shared_layers_store_kv = true},
    StorageStyle{.architecture = "gemma4",
                 .fused_expert_gate_up = true,
                 .shared_layers_store_kv = true,
                 .expert_norms_and_scales = true,
                 .layer_output_scale = true,
                 .factors_of_global_heads = true},
    StorageStyle{.architecture = "kimi-k3",
                 .latent_down = "ffn_routed_down.weight",
                 .latent_up = "ffn_routed_up.weight",
                 .residual_scores = true,
                 .flat_kda_decay = true},
};

constexpr StorageStyle kDefault{};

}  // namespace

const StorageStyle& storage_style(std::string_view architecture) {
  const auto* const found = std::find_if(kStyles.begin(), kStyles.end(), [&](const auto& style) {
    return style.architecture == architecture;
  });
  return found == kStyles.end() ? kDefault : *found;
}

}  // namespace kvfathom
