// What a model is, layer by layer: the struct that every reader fills and every formula reads.
//
// A spec that exists is valid: readers check ranges once and everything behind them trusts it.
// Counts are plain `std::int64_t`. Field names are those of `kvfathom inspect --json`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "model/architecture/tensor.h"

namespace kvfathom {

/// How a normalisation is parametrised: RMSNorm has a weight; LayerNorm a weight and a bias.
enum class NormKind : std::uint8_t { none, rms, layer, layer_no_bias };

/// Where query and key are normalised before attention: not at all, each head on its own
/// (weight of head_dim, Qwen3), or across all heads at once (weight of n_heads*head_dim, OLMo-2),
/// or each head with a weight of its own (n_heads x head_dim, Command R+).
enum class QkNorm : std::uint8_t { none, per_head, all_heads, each_head };

/// How an attention layer forgets.
enum class WindowKind : std::uint8_t { sliding, chunked };

/// The lightning indexer of DeepSeek sparse attention (DeepSeek-V3.2-Exp report; MiniMax-M3
/// has one on grouped-query layers, whose top_k counts tokens of whole blocks).
struct Indexer {
  std::int64_t n_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t top_k = 0;
  friend bool operator==(const Indexer&, const Indexer&) = default;
};

/// MHA, GQA or MQA; one K and one V vector of head_dim and v_head_dim per KV head and token.
struct Attention {
  static constexpr const char* kind = "attention";
  std::int64_t n_heads = 0;
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;    ///< width of one query or key head
  std::int64_t v_head_dim = 0;  ///< width of one value head
  std::optional<std::int64_t> window_tokens =
      std::nullopt;  ///< attends to this many last tokens; none: all
  WindowKind window_kind = WindowKind::sliding;
  bool sinks = false;  ///< one learned sink logit per head (gpt-oss); no cache
  QkNorm qk_norm = QkNorm::none;
  bool bias = false;          ///< biases on the q, k and v projections
  bool output_bias = false;   ///< bias on the output projection
  bool output_gate = false;   ///< q projection carries a gate as wide as q (Qwen3-Next)
  bool v_is_k = false;        ///< no V projection: V is the (normalised) K (Gemma-4 global)
  std::int64_t rope_dim = 0;  ///< rotated dimensions per head; 0: no rotary embedding
  /// Width of a gate with a projection of its own: n_heads (Step-3.5, Laguna) or
  /// n_heads * v_head_dim (Muse Glimmer); 0: none.
  std::int64_t gate_width = 0;
  std::optional<Indexer> indexer =
      std::nullopt;  ///< MiniMax-M3: one index key per token beside K and V
  /// K and V are projected from a latent of this rank, but cached for every head (DeepSeek files
  /// without latent keys), and queries from one of q_lora_rank; 0: no latent.
  std::int64_t kv_lora_rank = 0;
  std::int64_t q_lora_rank = 0;
  friend bool operator==(const Attention&, const Attention&) = default;
};

/// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): one latent and one rope key per
/// token, shared by all heads.
struct LatentAttention {
  static constexpr const char* kind = "mla";
  std::int64_t n_heads = 0;
  std::int64_t q_lora_rank = 0;  ///< 0: q is projected directly
  std::int64_t kv_lora_rank = 0;
  std::int64_t qk_nope_head_dim = 0;
  std::int64_t qk_rope_head_dim = 0;
  std::int64_t v_head_dim = 0;
  std::optional<Indexer> indexer = std::nullopt;
  bool output_gate = false;  ///< a gate of n_heads * v_head_dim on the output (Kimi-K3)
  friend bool operator==(const LatentAttention&, const LatentAttention&) = default;
};

/// Mamba-1 selective state space (arXiv 2312.00752).
struct Mamba {
  static constexpr const char* kind = "mamba";
  std::int64_t d_inner = 0;
  std::int64_t d_state = 0;
  std::int64_t d_conv = 0;
  std::int64_t dt_rank = 0;
  bool dt_b_c_norm = false;  ///< norms on dt, B and C (Jamba with weights, Falcon-Mamba without)
  friend bool operator==(const Mamba&, const Mamba&) = default;
};

/// Mamba-2 (arXiv 2405.21060): scalar decay per head, B and C shared by groups.
struct Mamba2 {
  static constexpr const char* kind = "mamba2";
  std::int64_t d_inner = 0;  ///< n_heads * head_dim
  std::int64_t d_state = 0;
  std::int64_t d_conv = 0;
  std::int64_t n_heads = 0;
  std::int64_t n_groups = 0;
  bool conv_bias = true;
  bool norm = true;  ///< gated RMSNorm over d_inner before the output projection
  friend bool operator==(const Mamba2&, const Mamba2&) = default;
};

/// Gated DeltaNet (arXiv 2412.06464; Qwen3-Next, Qwen3.5).
struct GatedDeltaNet {
  static constexpr const char* kind = "gated-delta-net";
  std::int64_t n_k_heads = 0;
  std::int64_t n_v_heads = 0;
  std::int64_t k_head_dim = 0;
  std::int64_t v_head_dim = 0;
  std::int64_t d_conv = 0;
  friend bool operator==(const GatedDeltaNet&, const GatedDeltaNet&) = default;
};

/// Kimi delta attention: a gated delta net whose decay is per key channel.
struct KimiDeltaAttention {
  static constexpr const char* kind = "kda";
  std::int64_t n_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t d_conv = 0;
  bool full_rank_gate = false;  ///< output gate of one full matrix, not two thin ones (Kimi-K3)
  friend bool operator==(const KimiDeltaAttention&, const KimiDeltaAttention&) = default;
};

/// Lightning attention (MiniMax-01): a linear attention with a fixed decay, no convolution.
struct LightningAttention {
  static constexpr const char* kind = "lightning-attention";
  std::int64_t n_heads = 0;
  std::int64_t head_dim = 0;
  friend bool operator==(const LightningAttention&, const LightningAttention&) = default;
};

/// RWKV time mixing; state n_heads * head_dim * head_dim and two token shifts.
struct Rwkv {
  static constexpr const char* kind = "rwkv";
  std::int64_t version = 0;
  std::int64_t n_heads = 0;
  std::int64_t head_dim = 0;
  friend bool operator==(const Rwkv&, const Rwkv&) = default;
};

/// Gated short convolution (LFM2); state: the last d_conv - 1 columns.
struct ShortConv {
  static constexpr const char* kind = "short-conv";
  std::int64_t channels = 0;
  std::int64_t d_conv = 0;
  bool bias = false;
  friend bool operator==(const ShortConv&, const ShortConv&) = default;
};

/// Computes queries of its own and reads the K and V of an earlier layer (Gemma-3n, CLA).
struct SharedAttention {
  static constexpr const char* kind = "shared";
  std::int64_t with_layer = 0;
  Attention attention;  ///< the shape of what it reads and of its own queries
  friend bool operator==(const SharedAttention&, const SharedAttention&) = default;
};

struct NoMixer {
  static constexpr const char* kind = "none";
  friend bool operator==(const NoMixer&, const NoMixer&) = default;
};

/// Attention and Mamba-2 side by side in one layer (Falcon-H1).
struct ParallelMixers {
  static constexpr const char* kind = "parallel";
  Attention attention;
  Mamba2 mamba2;
  friend bool operator==(const ParallelMixers&, const ParallelMixers&) = default;
};

using Mixer = std::variant<Attention,
                           LatentAttention,
                           Mamba,
                           Mamba2,
                           GatedDeltaNet,
                           KimiDeltaAttention,
                           LightningAttention,
                           Rwkv,
                           ShortConv,
                           SharedAttention,
                           ParallelMixers,
                           NoMixer>;

/// Up and down projection, with a gate projection of the same width if `gated`.
struct DenseFeedForward {
  static constexpr const char* kind = "dense";
  std::int64_t intermediate_size = 0;
  bool gated = true;
  bool bias = false;
  friend bool operator==(const DenseFeedForward&, const DenseFeedForward&) = default;
};

/// How a router turns its scores into expert weights: softmax over all experts, a sigmoid each
/// (DeepSeek-V3), or softmax over the chosen ones only (gpt-oss).
enum class ExpertGating : std::uint8_t { softmax, sigmoid, softmax_over_chosen };

/// Mixture of experts; every expert is a feed-forward of intermediate_size.
struct MixtureOfExperts {
  static constexpr const char* kind = "moe";
  std::int64_t n_experts = 0;
  std::int64_t n_experts_per_token = 0;
  std::int64_t n_shared_experts = 0;  ///< always active; one feed-forward of the width below
  std::int64_t intermediate_size = 0;
  std::int64_t shared_intermediate_size = 0;  ///< total width of the shared experts
  bool gated = true;
  bool bias = false;                ///< biases on the experts (gpt-oss)
  bool router_bias = false;         ///< one selection bias per expert (DeepSeek-V3)
  bool shared_expert_gate = false;  ///< a learned scalar gate on the shared expert (Qwen)
  std::int64_t latent_size =
      0;  ///< experts work on a projection this wide (Nemotron-3 Super); 0: none
  std::int64_t dense_intermediate_size = 0;  ///< a dense feed-forward beside it (Gemma-4); 0: none
  bool merged_gate_up = false;  ///< the file keeps gate and up of the experts in one tensor
  ExpertGating gating = ExpertGating::softmax;
  bool normalise_weights = false;    ///< the chosen experts' weights are made to sum to one
  double weights_scale = 1.0;        ///< factor on the experts' weights; 1 or 0: none
  std::int64_t n_expert_groups = 1;  ///< experts are chosen within the best groups; 1: no groups
  std::int64_t n_expert_groups_used = 1;
  friend bool operator==(const MixtureOfExperts&, const MixtureOfExperts&) = default;
};

struct NoFeedForward {
  static constexpr const char* kind = "none";
  friend bool operator==(const NoFeedForward&, const NoFeedForward&) = default;
};

using FeedForward = std::variant<DenseFeedForward, MixtureOfExperts, NoFeedForward>;

/// One block: norm, mixer, norm, feed-forward, with the norms it really has.
struct LayerSpec {
  Mixer mixer = NoMixer{};
  FeedForward feed_forward = NoFeedForward{};
  bool pre_mixer_norm = true;
  bool post_mixer_norm = false;       ///< on the mixer's output (Gemma-2, OLMo-2)
  bool pre_feed_forward_norm = true;  ///< false also where one norm serves both (parallel block)
  bool post_feed_forward_norm = false;
  bool parallel_residual = false;  ///< mixer and feed-forward read the same input (Falcon)
  friend bool operator==(const LayerSpec&, const LayerSpec&) = default;
};

/// A part beside the text decoder, with what it weighs.
struct ExtraPart {
  std::string kind;  ///< "vision", "audio", "mtp" (multi-token prediction), "draft"
  std::int64_t n_parameters = 0;
  std::int64_t n_layers = 0;  ///< for mtp: layers stored after the decoder's own
  friend bool operator==(const ExtraPart&, const ExtraPart&) = default;
};

/// Tables of per-frequency rotary factors that a GGUF stores beside the weights: none, one
/// (Llama 3.1 and later, Gemma-4) or a long and a short one (Phi-3 with long context).
enum class RotaryFactors : std::uint8_t { none, one, long_and_short };

/// A whole model. `architecture` is llama.cpp's name where llama.cpp has the architecture
/// ("llama", "deepseek2"), else Hugging Face's model_type.
struct ModelSpec {
  std::string name;
  std::string source;  ///< file or catalog entry it was read from
  std::string architecture;
  std::int64_t hidden_size = 0;
  std::int64_t vocab_size = 0;
  std::int64_t trained_context_tokens = 0;  ///< 0: the source does not say
  bool tied_embeddings = false;
  NormKind norm = NormKind::rms;
  bool embedding_norm = false;                ///< a norm right behind the token embedding
  bool output_bias = false;                   ///< bias on the output head
  std::int64_t position_embeddings = 0;       ///< rows of a learned position table; 0: none
  std::int64_t per_layer_embedding_size = 0;  ///< Gemma-3n / Gemma-4 E: width per layer; 0: none
  std::int64_t altup_inputs = 0;              ///< Gemma-3n: parallel residual streams; 0: none
  std::int64_t laurel_rank = 0;               ///< Gemma-3n: low-rank side branch; 0: none
  RotaryFactors rotary_factors = RotaryFactors::none;
  bool logit_softcap = false;      ///< final logits pass through a tanh cap (Gemma-2)
  bool attention_softcap = false;  ///< attention scores pass through a tanh cap (Gemma-2, Grok)
  /// The file keeps q, k and v of a layer in one matrix; nothing: it holds no tensors to tell.
  std::optional<bool> fused_qkv;
  bool attention_temperature =
      false;                     ///< queries are scaled by their position (Llama-4, Ministral 3)
  double embedding_scale = 1.0;  ///< factor on the token embedding; 1: none (graph has no op)
  double residual_scale = 1.0;   ///< factor on each block's output (Granite, MiniCPM)
  double logit_scale = 1.0;      ///< factor on the logits (Granite, Command-R)
  std::vector<LayerSpec> layers;
  std::vector<ExtraPart> extras;
  std::optional<DType> weight_dtype =
      std::nullopt;  ///< a config's own dtype (torch_dtype), or that of its quantised matrices
  /// The type of the experts' matrices where a checkpoint stores them apart (gpt-oss: mxfp4).
  std::optional<DType> expert_dtype = std::nullopt;
  /// What a config says that the matrices are packed in, where that is none of the types above:
  /// "awq". Its weights are not of these types then.
  std::string packed_as = {};
  std::vector<Tensor> tensors;  ///< every stored tensor, where the source holds tensors
  friend bool operator==(const ModelSpec&, const ModelSpec&) = default;
};

[[nodiscard]] inline std::int64_t n_layers(const ModelSpec& model) {
  return static_cast<std::int64_t>(model.layers.size());
}

}  // namespace kvfathom
