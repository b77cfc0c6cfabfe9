// The fields of kvfathom.inspect/1, one list per struct, from which reading and writing follow.
// Internal to model/io.
//
// A visitor has `always(name, value[, range])` for fields that the document must carry,
// `maybe(name, value, default[, range])` for fields that are left out at their default, and the
// same pair for enums with their names.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "model/architecture/model_spec.h"
#include "model/io/json_reader.h"

namespace kvfathom::inspect {

inline constexpr const char* kSchema = "kvfathom.inspect/1";

inline constexpr Range kCount{1, std::int64_t{1} << 24};
inline constexpr Range kCountOrNone{0, std::int64_t{1} << 24};
inline constexpr Range kHeads{1, 4096};
inline constexpr Range kHeadDim{1, 4096};
inline constexpr Range kTokens{0, std::int64_t{1} << 30};
inline constexpr Range kLayers{0, 2048};
inline constexpr Range kParameters{0, std::int64_t{1} << 50};

inline constexpr std::array<std::string_view, 4> kNormNames{
    "none", "rms", "layer", "layer-no-bias"};
inline constexpr std::array<std::string_view, 4> kQkNormNames{
    "none", "per-head", "all-heads", "each-head"};
inline constexpr std::array<std::string_view, 2> kWindowNames{"sliding", "chunked"};
inline constexpr std::array<std::string_view, 3> kGatingNames{
    "softmax", "sigmoid", "softmax-over-chosen"};
inline constexpr std::array<std::string_view, 3> kRotaryNames{"none", "one", "long-and-short"};

template <typename V>
void fields(V& v, Indexer& x) {
  v.always("n_heads", x.n_heads, kHeads);
  v.always("head_dim", x.head_dim, kHeadDim);
  v.always("top_k", x.top_k, kCount);
}

template <typename V>
void fields(V& v, Attention& x) {
  v.always("n_heads", x.n_heads, kHeads);
  v.always("n_kv_heads", x.n_kv_heads, kHeads);
  v.always("head_dim", x.head_dim, kHeadDim);
  v.always("v_head_dim", x.v_head_dim, kHeadDim);
  v.always("window_tokens", x.window_tokens, kTokens);
  v.maybe("window_kind", x.window_kind, WindowKind::sliding, kWindowNames);
  v.always("sinks", x.sinks);
  v.always("qk_norm", x.qk_norm, kQkNormNames);
  v.always("bias", x.bias);
  v.maybe("output_bias", x.output_bias, false);
  v.maybe("output_gate", x.output_gate, false);
  v.maybe("v_is_k", x.v_is_k, false);
  v.maybe("rope_dim", x.rope_dim, std::int64_t{0}, kCountOrNone);
  v.maybe("gate_width", x.gate_width, std::int64_t{0}, kCountOrNone);
  v.maybe("indexer", x.indexer);
  v.maybe("kv_lora_rank", x.kv_lora_rank, std::int64_t{0}, kCountOrNone);
  v.maybe("q_lora_rank", x.q_lora_rank, std::int64_t{0}, kCountOrNone);
}

template <typename V>
void fields(V& v, LatentAttention& x) {
  v.always("n_heads", x.n_heads, kHeads);
  v.always("q_lora_rank", x.q_lora_rank, kCountOrNone);
  v.always("kv_lora_rank", x.kv_lora_rank, kCount);
  v.always("qk_nope_head_dim", x.qk_nope_head_dim, kHeadDim);
  v.always("qk_rope_head_dim", x.qk_rope_head_dim, {0, kHeadDim.max});
  v.always("v_head_dim", x.v_head_dim, kHeadDim);
  v.always("indexer", x.indexer);
  v.maybe("output_gate", x.output_gate, false);
}

template <typename V>
void fields(V& v, Mamba& x) {
  v.always("d_inner", x.d_inner, kCount);
  v.always("d_state", x.d_state, kCount);
  v.always("d_conv", x.d_conv, kCount);
  v.always("dt_rank", x.dt_rank, kCount);
  v.maybe("dt_b_c_norm", x.dt_b_c_norm, false);
}

template <typename V>
void fields(V& v, Mamba2& x) {
  v.always("d_inner", x.d_inner, kCount);
  v.always("d_state", x.d_state, kCount);
  v.always("d_conv", x.d_conv, kCount);
  v.always("n_heads", x.n_heads, kCount);
  v.always("n_groups", x.n_groups, kCount);
  v.maybe("conv_bias", x.conv_bias, true);
  v.maybe("norm", x.norm, true);
}

template <typename V>
void fields(V& v, GatedDeltaNet& x) {
  v.always("n_k_heads", x.n_k_heads, kHeads);
  v.always("n_v_heads", x.n_v_heads, kHeads);
  v.always("k_head_dim", x.k_head_dim, kHeadDim);
  v.always("v_head_dim", x.v_head_dim, kHeadDim);
  v.always("d_conv", x.d_conv, kCount);
}

template <typename V>
void fields(V& v, KimiDeltaAttention& x) {
  v.always("n_heads", x.n_heads, kHeads);
  v.always("head_dim", x.head_dim, kHeadDim);
  v.always("d_conv", x.d_conv, kCount);
  v.maybe("full_rank_gate", x.full_rank_gate, false);
}

template <typename V>
void fields(V& v, LightningAttention& x) {
  v.always("n_heads", x.n_heads, kHeads);
  v.always("head_dim", x.head_dim, kHeadDim);
}

template <typename V>
void fields(V& v, Rwkv& x) {
  v.always("version", x.version, kCount);
  v.always("n_heads", x.n_heads, kHeads);
  v.always("head_dim", x.head_dim, kHeadDim);
}

template <typename V>
void fields(V& v, ShortConv& x) {
  v.always("channels", x.channels, kCount);
  v.always("d_conv", x.d_conv, kCount);
  v.maybe("bias", x.bias, false);
}

template <typename V>
void fields(V& v, SharedAttention& x) {
  v.always("with_layer", x.with_layer, kLayers);
  v.nested("attention", x.attention);
}

template <typename V>
void fields(V& /*v*/, NoMixer& /*x*/) {}

template <typename V>
void fields(V& v, ParallelMixers& x) {
  v.both("of", x.attention, x.mamba2);
}

template <typename V>
void fields(V& v, DenseFeedForward& x) {
  v.always("intermediate_size", x.intermediate_size, kCount);
  v.always("gated", x.gated);
  v.maybe("bias", x.bias, false);
}

template <typename V>
void fields(V& v, MixtureOfExperts& x) {
  v.always("n_experts", x.n_experts, kCount);
  v.always("n_experts_per_token", x.n_experts_per_token, kCount);
  v.always("n_shared_experts", x.n_shared_experts, kCountOrNone);
  v.always("intermediate_size", x.intermediate_size, kCount);
  v.always("shared_intermediate_size", x.shared_intermediate_size, kCountOrNone);
  v.maybe("gated", x.gated, true);
  v.maybe("bias", x.bias, false);
  v.maybe("router_bias", x.router_bias, false);
  v.maybe("shared_expert_gate", x.shared_expert_gate, false);
  v.maybe("latent_size", x.latent_size, std::int64_t{0}, kCountOrNone);
  v.maybe("dense_intermediate_size", x.dense_intermediate_size, std::int64_t{0}, kCountOrNone);
  v.maybe("merged_gate_up", x.merged_gate_up, false);
  v.maybe("gating", x.gating, ExpertGating::softmax, kGatingNames);
  v.maybe("normalise_weights", x.normalise_weights, false);
  v.maybe("weights_scale", x.weights_scale, 1.0);
  v.maybe("n_expert_groups", x.n_expert_groups, std::int64_t{1}, kCount);
  v.maybe("n_expert_groups_used", x.n_expert_groups_used, std::int64_t{1}, kCount);
}

template <typename V>
void fields(V& /*v*/, NoFeedForward& /*x*/) {}

/// The part of a layer beside its mixer and feed-forward.
template <typename V>
void norm_fields(V& v, LayerSpec& x) {
  v.maybe("pre_mixer_norm", x.pre_mixer_norm, true);
  v.maybe("post_mixer_norm", x.post_mixer_norm, false);
  v.maybe("pre_feed_forward_norm", x.pre_feed_forward_norm, true);
  v.maybe("post_feed_forward_norm", x.post_feed_forward_norm, false);
  v.maybe("parallel_residual", x.parallel_residual, false);
}

template <typename V>
void fields(V& v, ExtraPart& x) {
  v.always("kind", x.kind);
  v.always("n_parameters", x.n_parameters, kParameters);
  v.always("n_layers", x.n_layers, kLayers);
}

template <typename V>
void fields(V& v, ModelSpec& x) {
  v.always("hidden_size", x.hidden_size, kCount);
  v.always("vocab_size", x.vocab_size, kCount);
  v.always("tied_embeddings", x.tied_embeddings);
  v.always("trained_context_tokens", x.trained_context_tokens, kTokens);
  v.maybe("norm", x.norm, NormKind::rms, kNormNames);
  v.maybe("embedding_norm", x.embedding_norm, false);
  v.maybe("output_bias", x.output_bias, false);
  v.maybe("position_embeddings", x.position_embeddings, std::int64_t{0}, kTokens);
  v.maybe("per_layer_embedding_size", x.per_layer_embedding_size, std::int64_t{0}, kCountOrNone);
  v.maybe("altup_inputs", x.altup_inputs, std::int64_t{0}, kCountOrNone);
  v.maybe("laurel_rank", x.laurel_rank, std::int64_t{0}, kCountOrNone);
  v.maybe("rotary_factors", x.rotary_factors, RotaryFactors::none, kRotaryNames);
  v.maybe("logit_softcap", x.logit_softcap, false);
  v.maybe("attention_softcap", x.attention_softcap, false);
  v.maybe("attention_temperature", x.attention_temperature, false);
  v.maybe("fused_qkv", x.fused_qkv);
  v.maybe("embedding_scale", x.embedding_scale, 1.0);
  v.maybe("residual_scale", x.residual_scale, 1.0);
  v.maybe("logit_scale", x.logit_scale, 1.0);
  v.maybe("weight_dtype", x.weight_dtype);
  v.maybe("expert_dtype", x.expert_dtype);
  v.maybe("packed_as", x.packed_as, std::string());
}

}  // namespace kvfathom::inspect
