// What each kind of mixer stores.
#include <array>
#include <string_view>
#include <utility>
#include <variant>

#include "model/architecture/tensor_inventory_parts.h"

namespace kvfathom {
namespace {

using std::int64_t;

// ---- Attention -------------------------------------------------------------------------------

void add_qk_norms(Inventory& out, const Attention& a, bool with_k) {
  switch (a.qk_norm) {
    case QkNorm::none:
      return;
    case QkNorm::per_head:
      out.f32("attn_q_norm.weight", a.head_dim);
      if (with_k) {
        out.f32("attn_k_norm.weight", a.head_dim);
      }
      return;
    case QkNorm::all_heads:
      out.f32("attn_q_norm.weight", a.n_heads * a.head_dim);
      if (with_k) {
        out.f32("attn_k_norm.weight", a.n_kv_heads * a.head_dim);
      }
      return;
    case QkNorm::each_head:
      out.f32("attn_q_norm.weight", a.head_dim, a.n_heads);
      if (with_k) {
        out.f32("attn_k_norm.weight", a.head_dim, a.n_kv_heads);
      }
      return;
  }
}

void add_qkv(Inventory& out, const Attention& a, bool with_kv) {
  const int64_t hidden = out.model.hidden_size;
  const int64_t q = a.n_heads * a.head_dim * (a.output_gate ? 2 : 1);
  const int64_t k = a.n_kv_heads * a.head_dim;
  const int64_t v = a.v_is_k ? 0 : a.n_kv_heads * a.v_head_dim;
  if (out.style.fused_qkv) {
    out.matrix("attn_qkv.weight", hidden, q + k + v);
    if (a.bias) {
      out.f32("attn_qkv.bias", q + k + v);
    }
    return;
  }
  using Part = std::pair<std::array<std::string_view, 2>, int64_t>;
  const std::array<Part, 3> parts{Part{{"attn_q.weight", "attn_q.bias"}, q},
                                  Part{{"attn_k.weight", "attn_k.bias"}, with_kv ? k : 0},
                                  Part{{"attn_v.weight", "attn_v.bias"}, with_kv ? v : 0}};
  for (const auto& [names, width] : parts) {
    if (width > 0) {
      out.matrix(names[0], hidden, width);
      if (a.bias) {
        out.f32(names[1], width);
      }
    }
  }
}

void add_attention(Inventory& out, const Attention& a, bool with_kv = true) {
  const int64_t hidden = out.model.hidden_size;
  add_qkv(out, a, with_kv);
  add_qk_norms(out, a, with_kv);
  if (a.gate_width > 0) {
    out.matrix("attn_gate.weight", hidden, a.gate_width);
  }
  out.matrix("attn_output.weight", a.n_heads * a.v_head_dim, hidden);
  if (a.output_bias) {
    out.f32("attn_output.bias", hidden);
  }
  if (a.sinks) {
    out.f32("attn_sinks.weight", a.n_heads);
  }
  if (a.indexer) {  // MiniMax-M3: the indexer has projections of its own
    out.matrix("indexer.q_proj.weight", hidden, a.indexer->n_heads * a.indexer->head_dim);
    out.matrix("indexer.k_proj.weight", hidden, a.indexer->head_dim);
    out.f32("indexer.q_norm.weight", a.indexer->head_dim);
    out.f32("indexer.k_norm.weight", a.indexer->head_dim);
  }
}

void add_mixer(Inventory& out, const Attention& a) {
  add_attention(out, a);
}

void add_mixer(Inventory& out, const SharedAttention& shared) {
  add_attention(out, shared.attention, out.style.shared_layers_store_kv);
}

void add_mixer(Inventory& out, const LatentAttention& a) {
  const int64_t hidden = out.model.hidden_size;
  const int64_t q = a.n_heads * (a.qk_nope_head_dim + a.qk_rope_head_dim);
  if (a.q_lora_rank > 0) {
    out.matrix("attn_q_a.weight", hidden, a.q_lora_rank);
    out.f32("attn_q_a_norm.weight", a.q_lora_rank);
    out.matrix("attn_q_b.weight", a.q_lora_rank, q);
  } else {
    out.matrix("attn_q.weight", hidden, q);
  }
  out.matrix("attn_kv_a_mqa.weight", hidden, a.kv_lora_rank + a.qk_rope_head_dim);
  out.f32("attn_kv_a_norm.weight", a.kv_lora_rank);
  out.stack("attn_k_b.weight", a.qk_nope_head_dim, a.kv_lora_rank, a.n_heads);
  out.stack("attn_v_b.weight", a.kv_lora_rank, a.v_head_dim, a.n_heads);
  if (a.output_gate) {
    out.matrix("attn_gate.weight", hidden, a.n_heads * a.v_head_dim);
  }
  out.matrix("attn_output.weight", a.n_heads * a.v_head_dim, hidden);
  if (a.indexer) {
    const Indexer& index = *a.indexer;
    out.matrix("indexer.attn_k.weight", hidden, index.head_dim);
    out.f32("indexer.k_norm.weight", index.head_dim);
    out.f32("indexer.k_norm.bias", index.head_dim);
    out.matrix("indexer.attn_q_b.weight", a.q_lora_rank, index.n_heads * index.head_dim);
    out.f32("indexer.proj.weight", hidden, index.n_heads);
  }
}

// ---- Recurrent mixers ------------------------------------------------------------------------

void add_mixer(Inventory& out, const Mamba& m) {
  const int64_t hidden = out.model.hidden_size;
  out.matrix("ssm_in.weight", hidden, 2 * m.d_inner);
  out.f32("ssm_conv1d.weight", m.d_conv, m.d_inner);
  out.f32("ssm_conv1d.bias", m.d_inner);
  out.matrix("ssm_x.weight", m.d_inner, m.dt_rank + 2 * m.d_state);
  out.matrix("ssm_dt.weight", m.dt_rank, m.d_inner);
  out.f32("ssm_dt.bias", m.d_inner);
  out.f32("ssm_a", m.d_state, m.d_inner);
  out.f32("ssm_d", m.d_inner);
  out.matrix("ssm_out.weight", m.d_inner, hidden);
  if (m.dt_b_c_norm && out.model.architecture != "mamba") {  // Falcon-Mamba's have no weight
    out.f32("ssm_dt_norm.weight", m.dt_rank);
    out.f32("ssm_b_norm.weight", m.d_state);
    out.f32("ssm_c_norm.weight", m.d_state);
  }
}

void add_mixer(Inventory& out, const Mamba2& m) {
  const int64_t hidden = out.model.hidden_size;
  const int64_t conv = m.d_inner + 2 * m.n_groups * m.d_state;
  out.matrix("ssm_in.weight", hidden, m.d_inner + conv + m.n_heads);
  out.f32("ssm_conv1d.weight", m.d_conv, conv);
  if (m.conv_bias) {
    out.f32("ssm_conv1d.bias", conv);
  }
  out.f32("ssm_dt.bias", m.n_heads);
  out.f32("ssm_a", 1, m.n_heads);
  out.f32("ssm_d", 1, m.n_heads);
  if (m.norm) {
    out.f32("ssm_norm.weight", m.d_inner / m.n_groups, m.n_groups);
  }
  out.matrix("ssm_out.weight", m.d_inner, hidden);
}

void add_mixer(Inventory& out, const GatedDeltaNet& g) {
  const int64_t hidden = out.model.hidden_size;
  const int64_t value = g.n_v_heads * g.v_head_dim;
  const int64_t qkv = 2 * g.n_k_heads * g.k_head_dim + value;
  out.matrix("attn_qkv.weight", hidden, qkv);
  out.matrix("attn_gate.weight", hidden, value);
  out.f32("ssm_conv1d.weight", g.d_conv, qkv);
  out.f32("ssm_dt.bias", g.n_v_heads);
  out.f32("ssm_a", g.n_v_heads);
  if (out.style.joint_beta_alpha) {
    out.matrix("ssm_ba.weight", hidden, 2 * g.n_v_heads);
  } else {
    out.matrix("ssm_beta.weight", hidden, g.n_v_heads);
    out.matrix("ssm_alpha.weight", hidden, g.n_v_heads);
  }
  out.f32("ssm_norm.weight", g.v_head_dim);
  out.matrix("ssm_out.weight", value, hidden);
}

void add_mixer(Inventory& out, const KimiDeltaAttention& k) {
  const int64_t hidden = out.model.hidden_size;
  const int64_t inner = k.n_heads * k.head_dim;
  for (const std::string_view name : {"attn_q.weight", "attn_k.weight", "attn_v.weight"}) {
    out.matrix(name, hidden, inner);
  }
  for (const std::string_view name :
       {"ssm_conv1d_q.weight", "ssm_conv1d_k.weight", "ssm_conv1d_v.weight"}) {
    out.f32(name, k.d_conv, 1, inner);
  }
  out.matrix("ssm_f_a.weight", hidden, k.head_dim);
  out.matrix("ssm_f_b.weight", k.head_dim, inner);
  out.matrix("ssm_beta.weight", hidden, k.n_heads);
  if (out.style.flat_kda_decay) {
    out.f32("ssm_a", k.n_heads);
  } else {
    out.f32("ssm_a", 1, k.n_heads);
  }
  out.f32("ssm_dt.bias", inner);
  if (k.full_rank_gate) {
    out.matrix("ssm_g.weight", hidden, inner);
  } else {
    out.matrix("ssm_g_a.weight", hidden, k.head_dim);
    out.matrix("ssm_g_b.weight", k.head_dim, inner);
  }
  out.f32("ssm_norm.weight", k.head_dim);
  out.matrix("attn_output.weight", inner, hidden);
}

void add_mixer(Inventory& out, const LightningAttention& a) {
  const int64_t hidden = out.model.hidden_size;
  const int64_t inner = a.n_heads * a.head_dim;
  out.matrix("attn_qkv.weight", hidden, 3 * inner);
  out.matrix("attn_gate.weight", hidden, inner);
  out.f32("attn_norm_2.weight", inner);
  out.matrix("attn_output.weight", inner, hidden);
}

void add_mixer(Inventory& out, const Rwkv& r) {
  const int64_t hidden = out.model.hidden_size;
  const int64_t inner = r.n_heads * r.head_dim;
  for (const std::string_view name : {"time_mix_key.weight",
                                      "time_mix_value.weight",
                                      "time_mix_receptance.weight",
                                      "time_mix_gate.weight"}) {
    out.matrix(name, hidden, inner);
  }
  out.matrix("time_mix_output.weight", inner, hidden);
  for (const std::string_view name : {"time_mix_lerp_k.weight",
                                      "time_mix_lerp_v.weight",
                                      "time_mix_lerp_r.weight",
                                      "time_mix_lerp_g.weight",
                                      "channel_mix_lerp_k.weight",
                                      "channel_mix_lerp_r.weight"}) {
    out.f32(name, hidden);
  }
  out.f32("time_mix_decay.weight", r.head_dim, r.n_heads);
  out.f32("time_mix_first.weight", r.head_dim, r.n_heads);
  out.f32("time_mix_ln.weight", inner);
  out.f32("time_mix_ln.bias", inner);
  out.matrix("channel_mix_receptance.weight", hidden, hidden);
}

void add_mixer(Inventory& out, const ShortConv& c) {
  const int64_t hidden = out.model.hidden_size;
  out.f32("shortconv.conv.weight", c.d_conv, c.channels);
  out.matrix("shortconv.in_proj.weight", hidden, 3 * c.channels);
  out.matrix("shortconv.out_proj.weight", c.channels, hidden);
}

void add_mixer(Inventory& out, const ParallelMixers& both) {
  add_mixer(out, both.mamba2);
  add_attention(out, both.attention);
}

void add_mixer(Inventory& /*out*/, const NoMixer& /*none*/) {}

}  // namespace

void add_mixer_tensors(Inventory& out, const Mixer& mixer) {
  std::visit([&](const auto& one) { add_mixer(out, one); }, mixer);
}

}  // namespace kvfathom
