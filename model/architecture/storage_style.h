// What llama.cpp's architectures store differently from each other; internal to the inventory.
#pragma once

#include <string_view>

namespace kvfathom {

/// The defaults are what most architectures do; the table in storage_style.cpp holds the rest.
struct StorageStyle {
  std::string_view architecture;
  bool fused_qkv = false;             ///< one attn_qkv instead of attn_q, attn_k, attn_v
  bool fused_gate_up = false;         ///< ffn_up holds gate and up, one after the other
  bool fused_expert_gate_up = false;  ///< the same of the experts: ffn_gate_up_exps
  /// The norm before the feed-forward; GGUF files of some architectures name it by its place
  /// behind the attention.
  std::string_view feed_forward_norm = "ffn_norm.weight";
  std::string_view output_norm = "output_norm";
  std::string_view latent_down = "ffn_latent_down.weight";
  std::string_view latent_up = "ffn_latent_up.weight";
  bool shared_layers_store_kv = false;  ///< K and V are stored even where they are not used
  bool second_attention_norm = false;   ///< the pre-feed-forward norm is attn_norm_2
  bool joint_beta_alpha = false;        ///< gated delta net: one ssm_ba, not ssm_beta and ssm_alpha
  bool expert_norms_and_scales = false;  ///< Gemma-4: three more norms and two scales per MoE layer
  bool layer_output_scale = false;       ///< Gemma-4: one scalar per layer
  bool residual_scores = false;          ///< Kimi-K3: scores over the residual streams of blocks
  bool factors_of_global_heads = false;  ///< Gemma-4: rope_freqs spans a whole head without window
  bool flat_kda_decay = false;           ///< Kimi-K3: ssm_a is {n_heads}, not {1, n_heads}
};

[[nodiscard]] const StorageStyle& storage_style(std::string_view architecture);

}  // namespace kvfathom
