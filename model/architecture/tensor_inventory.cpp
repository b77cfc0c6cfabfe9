#include "model/architecture/tensor_inventory.h"

#include <algorithm>
#include <string>
#include <variant>

#include "model/architecture/tensor_inventory_parts.h"

namespace kvfathom {
namespace {

using std::int64_t;

// ---- Feed-forward ----------------------------------------------------------------------------

void add_dense(Inventory& out, int64_t width, bool gated, bool bias) {
  const int64_t hidden = out.model.hidden_size;
  const bool fused = gated && out.style.fused_gate_up;
  if (gated && !fused) {
    out.matrix("ffn_gate.weight", hidden, width);
  }
  out.matrix("ffn_up.weight", hidden, fused ? 2 * width : width);
  out.matrix("ffn_down.weight", width, hidden);
  if (bias) {
    if (gated && !fused) {
      out.f32("ffn_gate.bias", width);
    }
    out.f32("ffn_up.bias", fused ? 2 * width : width);
    out.f32("ffn_down.bias", hidden);
  }
}

void add_feed_forward(Inventory& out, const DenseFeedForward& ff, const Mixer& mixer) {
  if (std::holds_alternative<Rwkv>(mixer)) {
    out.matrix("channel_mix_key.weight", out.model.hidden_size, ff.intermediate_size);
    out.matrix("channel_mix_value.weight", ff.intermediate_size, out.model.hidden_size);
  } else {
    add_dense(out, ff.intermediate_size, ff.gated, ff.bias);
  }
}

void add_experts(Inventory& out, const MixtureOfExperts& moe) {
  const int64_t width = moe.latent_size > 0 ? moe.latent_size : out.model.hidden_size;
  const int64_t ff = moe.intermediate_size;
  const int64_t n = moe.n_experts;
  if (moe.gated && out.style.fused_expert_gate_up) {
    out.experts("ffn_gate_up_exps.weight", width, 2 * ff, n);
  } else {
    if (moe.gated) {
      out.experts("ffn_gate_exps.weight", width, ff, n);
    }
    out.experts("ffn_up_exps.weight", width, ff, n);
  }
  out.experts("ffn_down_exps.weight", ff, width, n);
  if (moe.bias) {
    if (moe.gated) {
      out.f32("ffn_gate_exps.bias", ff, n);
    }
    out.f32("ffn_up_exps.bias", ff, n);
    out.f32("ffn_down_exps.bias", width, n);
  }
}

void add_feed_forward(Inventory& out, const MixtureOfExperts& moe, const Mixer& /*mixer*/) {
  const int64_t hidden = out.model.hidden_size;
  out.f32("ffn_gate_inp.weight", hidden, moe.n_experts);
  if (moe.bias) {
    out.f32("ffn_gate_inp.bias", moe.n_experts);
  }
  if (moe.router_bias) {
    out.f32("exp_probs_b.bias", moe.n_experts);
  }
  if (moe.latent_size > 0) {
    out.matrix(out.style.latent_down, hidden, moe.latent_size);
    out.matrix(out.style.latent_up, moe.latent_size, hidden);
    if (out.style.residual_scores) {
      out.f32("ffn_routed_norm.weight", moe.latent_size);
    }
  }
  add_experts(out, moe);
  if (moe.shared_intermediate_size > 0) {
    if (moe.shared_expert_gate) {
      out.f32("ffn_gate_inp_shexp.weight", hidden);
    }
    if (moe.gated) {
      out.matrix("ffn_gate_shexp.weight", hidden, moe.shared_intermediate_size);
    }
    out.matrix("ffn_up_shexp.weight", hidden, moe.shared_intermediate_size);
    out.matrix("ffn_down_shexp.weight", moe.shared_intermediate_size, hidden);
  }
  if (moe.dense_intermediate_size > 0) {
    add_dense(out, moe.dense_intermediate_size, moe.gated, false);
  }
  if (out.style.expert_norms_and_scales) {
    out.f32("ffn_gate_inp.scale", hidden);
    out.f32("ffn_down_exps.scale", moe.n_experts);
    out.f32("pre_ffw_norm_2.weight", hidden);
    out.f32("post_ffw_norm_1.weight", hidden);
    out.f32("post_ffw_norm_2.weight", hidden);
  }
}

void add_feed_forward(Inventory& /*out*/, const NoFeedForward& /*none*/, const Mixer& /*mixer*/) {}

// ---- Layer and model -------------------------------------------------------------------------

/// Gemma-3n and the small Gemma-4: what feeds the per-layer embeddings in, and, in Gemma-3n, the
/// alternating-updates and low-rank side branches.
void add_per_layer_inputs(Inventory& out) {
  const ModelSpec& model = out.model;
  const int64_t hidden = model.hidden_size;
  if (model.per_layer_embedding_size > 0) {
    out.matrix("inp_gate.weight", hidden, model.per_layer_embedding_size);
    out.matrix("proj.weight", model.per_layer_embedding_size, hidden);
    out.f32("post_norm.weight", hidden);
  }
  if (model.altup_inputs > 0) {
    const int64_t n = model.altup_inputs;
    out.f32("altup_correct_coef.weight", n, n);
    out.f32("altup_correct_scale.weight", hidden);
    out.f32("altup_predict_coef.weight", n, n * n);
    out.matrix("altup_router.weight", hidden, n);
    out.f32("altup_router_norm.weight", hidden);
  }
  if (model.laurel_rank > 0) {
    out.matrix("laurel_l.weight", hidden, model.laurel_rank);
    out.matrix("laurel_r.weight", model.laurel_rank, hidden);
    out.f32("laurel_post_norm.weight", hidden);
  }
}

void add_layer(Inventory& out, const LayerSpec& layer) {
  const int64_t hidden = out.model.hidden_size;
  if (layer.pre_mixer_norm) {
    out.norm("attn_norm.weight", hidden);
  }
  add_mixer_tensors(out, layer.mixer);
  if (layer.post_mixer_norm) {
    out.norm("post_attention_norm.weight", hidden);
  }
  if (layer.pre_feed_forward_norm) {
    out.norm(out.style.second_attention_norm ? "attn_norm_2.weight" : out.style.feed_forward_norm,
             hidden);
  }
  std::visit([&](const auto& ff) { add_feed_forward(out, ff, layer.mixer); }, layer.feed_forward);
  if (layer.post_feed_forward_norm) {
    out.norm("post_ffw_norm.weight", hidden);
  }
  if (out.style.layer_output_scale) {
    out.f32("layer_output_scale.weight", 1);
  }
  if (out.style.residual_scores) {
    out.f32("attn_res_score.weight", hidden);
    out.f32("ffn_res_score.weight", hidden);
  }
  add_per_layer_inputs(out);
}

/// Rotated pairs of a head: the length of a table of rotary factors.
int64_t rotary_pairs(const Inventory& out) {
  int64_t pairs = 0;
  for (const LayerSpec& layer : out.model.layers) {
    if (const auto* a = std::get_if<Attention>(&layer.mixer); a != nullptr) {
      if (!out.style.factors_of_global_heads) {
        pairs = std::max(pairs, a->rope_dim / 2);
      } else if (!a->window_tokens) {
        pairs = std::max(pairs, a->head_dim / 2);
      }
    }
  }
  return pairs;
}

void add_embeddings(Inventory& out) {
  const ModelSpec& model = out.model;
  const int64_t hidden = model.hidden_size;
  out.vocabulary("token_embd.weight", hidden, model.vocab_size);
  if (model.embedding_norm) {
    out.norm("token_embd_norm.weight", hidden);
  }
  if (model.position_embeddings > 0) {
    out.f32("position_embd.weight", hidden, model.position_embeddings);
  }
  if (model.per_layer_embedding_size > 0) {
    const int64_t width = model.per_layer_embedding_size * n_layers(model);
    out.vocabulary("per_layer_token_embd.weight", width, model.vocab_size);
    out.matrix("per_layer_model_proj.weight", hidden, width);
    out.f32("per_layer_proj_norm.weight", model.per_layer_embedding_size);
  }
  if (model.altup_inputs > 0) {
    out.stack("altup_proj.weight", hidden, hidden, model.altup_inputs - 1);
    out.stack("altup_unembd_proj.weight", hidden, hidden, model.altup_inputs - 1);
  }
  if (model.rotary_factors == RotaryFactors::one) {
    out.f32("rope_freqs.weight", rotary_pairs(out));
  } else if (model.rotary_factors == RotaryFactors::long_and_short) {
    out.f32("rope_factors_long.weight", rotary_pairs(out));
    out.f32("rope_factors_short.weight", rotary_pairs(out));
  }
}

void add_output(Inventory& out) {
  const ModelSpec& model = out.model;
  if (model.norm != NormKind::none) {
    out.norm(std::string(out.style.output_norm) + ".weight", model.hidden_size);
  }
  if (out.style.residual_scores) {
    out.f32("output_res_score.weight", model.hidden_size);
  }
  if (!model.tied_embeddings) {
    out.vocabulary("output.weight", model.hidden_size, model.vocab_size);
  }
  if (model.output_bias) {
    out.f32("output.bias", model.vocab_size);
  }
}

}  // namespace

std::vector<Tensor> tensor_inventory(const ModelSpec& model) {
  Inventory out(model, storage_style(model.architecture));
  add_embeddings(out);
  for (int64_t i = 0; i < n_layers(model); ++i) {
    out.begin_layer(i);
    add_layer(out, model.layers[static_cast<std::size_t>(i)]);
  }
  out.end_layers();
  add_output(out);
  return out.take();
}

}  // namespace kvfathom
