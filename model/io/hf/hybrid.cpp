// Models whose layers alternate between attention and a recurrent or convolutional mixer.
#include <algorithm>
#include <array>
#include <string>

#include "model/io/hf/towers.h"
#include "model/io/hf/translate.h"
#include "model/rounding.h"

namespace kvfathom::hf {
namespace {

using std::int64_t;

// ---- Qwen3-Next and Qwen3.5: gated delta nets ------------------------------------------------

FeedForward qwen_feed_forward(const Reader& c) {
  if (!c.has("num_experts")) {
    return read_dense(c);
  }
  MixtureOfExperts moe =
      read_experts(c, {.shared_intermediate_size = "shared_expert_intermediate_size"});
  moe.shared_expert_gate = true;
  read_routing(c, moe, kSoftmaxNormalised, {.weights_scale = nullptr});
  return moe;
}

void qwen_delta_net(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention full = read_attention(c);
  full.qk_norm = QkNorm::per_head;
  full.output_gate = c.flag_or("attn_output_gate", true);
  const GatedDeltaNet linear{.n_k_heads = c.count("linear_num_key_heads", kHeads),
                             .n_v_heads = c.count("linear_num_value_heads", kHeads),
                             .k_head_dim = c.count("linear_key_head_dim", kHeadDim),
                             .v_head_dim = c.count("linear_value_head_dim", kHeadDim),
                             .d_conv = c.count("linear_conv_kernel_dim", {1, 64})};
  const FeedForward ff = qwen_feed_forward(c);
  const int64_t n = layer_count(c);
  std::vector<std::string> types;
  if (c.has("layer_types")) {
    types = names_per_layer(c, "layer_types", n);
  } else {
    const int64_t every = c.count_or("full_attention_interval", 4, {1, kLayers.max});
    for (int64_t i = 0; i < n; ++i) {
      types.emplace_back((i + 1) % every == 0 ? "full_attention" : "linear_attention");
    }
  }
  for (const std::string& type : types) {
    m.layers.push_back(type == "full_attention" ? layer_of(full, ff) : layer_of(linear, ff));
  }
  // Qwen3-Next's config is silent about its block (vLLM models/qwen3_next_mtp.py takes one);
  // Qwen3-Coder-Next's checkpoint, of the same config, lacks it.
  const int64_t n_blocks = m.architecture == "qwen3next" ? 1 : 0;
  add_mtp(m, layer_of(full, ff), c.count_or("mtp_num_hidden_layers", n_blocks, {0, 16}), false);
  add_qwen_tower(c, m);
}

// ---- Kimi: delta attention and latent attention ----------------------------------------------

/// `linear_attn_config` numbers layers from 1.
std::vector<bool> is_kda_layer(const Reader& c, const Reader& linear, int64_t n) {
  std::vector<bool> is_kda(static_cast<std::size_t>(n), false);
  for (const int64_t layer : linear.counts("kda_layers", {1, n})) {
    is_kda[static_cast<std::size_t>(layer - 1)] = true;
  }
  for (const int64_t layer : linear.counts("full_attn_layers", {1, n})) {
    if (is_kda[static_cast<std::size_t>(layer - 1)]) {
      throw linear.error("full_attn_layers",
                         "layer " + std::to_string(layer) + " is also in kda_layers",
                         "each layer in one of the lists");
    }
  }
  const auto listed = linear.counts("kda_layers").size() + linear.counts("full_attn_layers").size();
  if (static_cast<int64_t>(listed) != n) {
    throw c.error("linear_attn_config",
                  std::to_string(listed) + " layers in its two lists",
                  "each of the " + std::to_string(n) + " layers once");
  }
  return is_kda;
}

void kimi_linear(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  const Reader linear = c.object("linear_attn_config");
  LatentAttention latent = read_latent_attention(c);
  latent.output_gate = c.flag_or("mla_use_output_gate", false);
  const KimiDeltaAttention kda{.n_heads = linear.count("num_heads", kHeads),
                               .head_dim = linear.count("head_dim", kHeadDim),
                               .d_conv = linear.count("short_conv_kernel_size", {1, 64}),
                               .full_rank_gate = linear.flag_or("use_full_rank_gate", false)};
  MixtureOfExperts moe = read_experts(
      c,
      {.n_experts_per_token = "num_experts_per_token", .n_shared_experts = "num_shared_experts"});
  read_routing(c, moe, kSigmoidNormalised, {.normalise_weights = "moe_renormalize"});
  moe.router_bias = true;  // by the class
  moe.latent_size = c.count_or("routed_expert_hidden_size", 0, kMaybeNone);
  const int64_t n_dense = c.count_or("first_k_dense_replace", 0, kMaybeNone);
  for (const bool is_kda : is_kda_layer(c, linear, layer_count(c))) {
    const FeedForward ff = n_layers(m) < n_dense ? FeedForward(read_dense(c)) : FeedForward(moe);
    m.layers.push_back(is_kda ? layer_of(kda, ff) : layer_of(latent, ff));
  }
  add_moonvit_tower(c, m);
}

// ---- Mamba beside attention ------------------------------------------------------------------

void falcon_h1(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  const Attention a = read_attention(c);
  const Mamba2 mamba{.d_inner = c.count("mamba_d_ssm", kWidth),
                     .d_state = c.count("mamba_d_state", kWidth),
                     .d_conv = c.count("mamba_d_conv", {1, 64}),
                     .n_heads = c.count("mamba_n_heads", kHeads),
                     .n_groups = c.count("mamba_n_groups", kHeads),
                     .conv_bias = c.flag_or("mamba_conv_bias", true),
                     .norm = c.flag_or("mamba_rms_norm", false)};
  repeat(c, m, layer_of(ParallelMixers{a, mamba}, read_dense(c)));
}

void granite_hybrid(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  m.embedding_scale = c.number_or("embedding_multiplier", 1.0);
  m.residual_scale = c.number_or("residual_multiplier", 1.0);
  m.logit_scale = granite_logit_scale(c);
  Attention a = read_attention(c);
  if (c.text_or("position_embedding_type", "nope") != "rope") {
    a.rope_dim = 0;  // GraniteMoeHybridConfig's default: positions come from the Mamba layers
  }
  const int64_t n_heads = c.count("mamba_n_heads", kHeads);
  const int64_t head_dim = c.is_text("mamba_d_head") || !c.has("mamba_d_head")
                               ? c.count_or("mamba_expand", 2, {1, 64}) * m.hidden_size / n_heads
                               : c.count("mamba_d_head", kHeadDim);
  const Mamba2 mamba{.d_inner = n_heads * head_dim,
                     .d_state = c.count("mamba_d_state", kWidth),
                     .d_conv = c.count_or("mamba_d_conv", 4, {1, 64}),
                     .n_heads = n_heads,
                     .n_groups = c.count_or("mamba_n_groups", 1, kHeads),
                     .conv_bias = c.flag_or("mamba_conv_bias", true)};
  FeedForward ff = DenseFeedForward{c.count("shared_intermediate_size", kWidth)};
  if (c.count_or("num_local_experts", 0, {0, kExperts.max}) > 0) {
    MixtureOfExperts moe = read_experts(c,
                                        {.n_experts = "num_local_experts",
                                         .intermediate_size = "intermediate_size",
                                         .shared_intermediate_size = "shared_intermediate_size"});
    // A softmax over the chosen experts only, which is one over all made to sum to one.
    set_routing(moe, kSoftmaxNormalised);
    ff = moe;
  }
  for (const std::string& type : names_per_layer(c, "layer_types", layer_count(c))) {
    m.layers.push_back(type == "mamba" ? layer_of(mamba, ff) : layer_of(a, ff));
  }
}

void jamba(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention a = read_attention(c);
  a.rope_dim = 0;  // Jamba's attention has no positions of its own
  const Mamba mamba{.d_inner = c.count_or("mamba_expand", 2, {1, 64}) * m.hidden_size,
                    .d_state = c.count_or("mamba_d_state", 16, kWidth),
                    .d_conv = c.count_or("mamba_d_conv", 4, {1, 64}),
                    .dt_rank = c.is_text("mamba_dt_rank") || !c.has("mamba_dt_rank")
                                   ? (m.hidden_size + 15) / 16  // "auto"
                                   : c.count("mamba_dt_rank", kWidth),
                    .dt_b_c_norm = true};
  const MixtureOfExperts moe = read_experts(c, {.intermediate_size = "intermediate_size"});
  const auto every = [&](const char* period, const char* offset, int64_t i) {
    return i % c.count(period, {1, kLayers.max}) == c.count(offset, {0, kLayers.max});
  };
  const int64_t n = layer_count(c);
  for (int64_t i = 0; i < n; ++i) {
    LayerSpec layer = layer_of(mamba, read_dense(c));
    if (every("attn_layer_period", "attn_layer_offset", i)) {
      layer.mixer = a;
    }
    if (every("expert_layer_period", "expert_layer_offset", i)) {
      layer.feed_forward = moe;
    }
    m.layers.push_back(layer);
  }
}

/// Nemotron-H: a layer is a mixer or a feed-forward, by a pattern of M (Mamba-2), * (attention),
/// - (dense) and E (experts), or by a list of the same in words.
std::string nemotron_pattern(const Reader& c, const char* letters, const char* words) {
  if (c.has(letters) || !c.has(words)) {
    std::string pattern = c.text(letters);
    if (pattern.empty() || pattern.size() > static_cast<std::size_t>(kLayers.max) ||
        pattern.find_first_not_of("M*-E") != std::string::npos) {
      throw c.error(letters, c.shown(letters) + " is not understood", "letters M, *, - and E");
    }
    return pattern;
  }
  std::string pattern;
  for (const std::string& word : c.texts(words)) {
    const std::array<std::pair<std::string_view, char>, 4> known{
        {{"mamba", 'M'}, {"attention", '*'}, {"mlp", '-'}, {"moe", 'E'}}};
    const auto* const at = std::find_if(
        known.begin(), known.end(), [&](const auto& one) { return one.first == word; });
    if (at == known.end()) {
      throw c.error(words,
                    "\"" + word.substr(0, 40) + "\" is no kind of layer here",
                    "mamba, attention, mlp or moe");
    }
    pattern += at->second;
  }
  return pattern;
}

LayerSpec nemotron_layer(const Reader& c, char kind) {
  LayerSpec layer;
  layer.pre_feed_forward_norm = false;
  if (kind == 'M') {
    const int64_t n_heads = c.count("mamba_num_heads", kHeads);
    layer.mixer = Mamba2{.d_inner = n_heads * c.count("mamba_head_dim", kHeadDim),
                         .d_state = c.count("ssm_state_size", kWidth),
                         .d_conv = c.count("conv_kernel", {1, 64}),
                         .n_heads = n_heads,
                         .n_groups = c.count("n_groups", kHeads),
                         .conv_bias = c.flag_or("use_conv_bias", true)};
    return layer;
  }
  if (kind == '*') {
    Attention a = read_attention(c);
    a.rope_dim = 0;  // positions come from the Mamba layers
    layer.mixer = a;
    return layer;
  }
  layer.pre_mixer_norm = false;
  layer.pre_feed_forward_norm = true;
  if (kind == '-') {
    DenseFeedForward ff = read_dense(c);
    ff.gated = false;
    layer.feed_forward = ff;
    return layer;
  }
  MixtureOfExperts moe =
      read_experts(c,
                   {.n_experts = "n_routed_experts",
                    .shared_intermediate_size = "moe_shared_expert_intermediate_size"});
  moe.gated = false;
  read_routing(c, moe, kSigmoidNormalised);
  moe.router_bias = true;  // by the class
  moe.latent_size = c.count_or("moe_latent_size", 0, kMaybeNone);
  layer.feed_forward = moe;
  return layer;
}

void nemotron_h(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  const std::string pattern = nemotron_pattern(c, "hybrid_override_pattern", "layers_block_type");
  if (c.has("num_hidden_layers") && layer_count(c) != static_cast<int64_t>(pattern.size())) {
    throw c.error("hybrid_override_pattern",
                  std::to_string(pattern.size()) + " letters",
                  "one for each of " + std::to_string(layer_count(c)) + " layers");
  }
  for (const char kind : pattern) {
    m.layers.push_back(nemotron_layer(c, kind));
  }
  if (pattern.find('E') != std::string::npos) {
    m.architecture = "nemotron_h_moe";
  }
  if (c.count_or("num_nextn_predict_layers", 0, {0, 16}) > 0) {
    // Its blocks are one stored layer together, with one projection and one set of norms.
    for (const char kind :
         nemotron_pattern(c, "mtp_hybrid_override_pattern", "mtp_layers_block_type")) {
      const LayerSpec block = nemotron_layer(c, kind);
      if (m.extras.empty()) {
        add_mtp(m, block, 1, false);
      } else {
        LayerSpec copy = block;
        ModelSpec without = m;
        without.extras.clear();
        add_mtp(without, copy, 1, false);
        m.extras.front().n_parameters += without.extras.front().n_parameters -
                                         2 * m.hidden_size * m.hidden_size - 3 * m.hidden_size;
      }
    }
  }
}

// ---- LFM2 and MiniMax-M1 ---------------------------------------------------------------------

/// LFM2's own rule for the width: two thirds of block_ff_dim, up to a multiple.
int64_t lfm2_width(const Reader& c) {
  if (!c.has("block_ff_dim")) {
    return c.count_or("intermediate_size", 7168, kWidth);  // Lfm2MoeConfig's default
  }
  int64_t width = c.count("block_ff_dim", kWidth);
  if (c.flag_or("block_auto_adjust_ff_dim", true)) {
    const double factor = c.number_or("block_ffn_dim_multiplier", 1.0);
    if (!(factor > 0.0 && factor < 64.0)) {
      throw c.error("block_ffn_dim_multiplier",
                    c.shown("block_ffn_dim_multiplier") + " is out of range",
                    "a number above 0 and below 64");
    }
    const int64_t multiple = c.count_or("block_multiple_of", 256, kWidth);
    const int64_t two_thirds = 2 * width / 3;
    width = static_cast<int64_t>(factor * static_cast<double>(two_thirds));
    width = round_up(width, multiple);
  }
  return width;
}

void lfm2(const Reader& c, ModelSpec& m) {
  read_shape(c, m, true);
  const int64_t n = layer_count(c);
  std::vector<bool> full(static_cast<std::size_t>(n), false);
  if (c.has("layer_types")) {
    const std::vector<std::string> types = names_per_layer(c, "layer_types", n);
    std::transform(types.begin(), types.end(), full.begin(), [](const std::string& type) {
      return type == "full_attention";
    });
  } else {
    for (const int64_t i : c.counts("full_attn_idxs", {0, n - 1})) {
      full[static_cast<std::size_t>(i)] = true;
    }
  }
  Attention a = read_attention(c);
  a.qk_norm = QkNorm::per_head;
  const ShortConv conv{.channels = m.hidden_size,
                       .d_conv = c.count("conv_L_cache", {1, 64}),
                       .bias = c.flag_or("conv_bias", false)};
  const DenseFeedForward dense{lfm2_width(c)};
  FeedForward rest = dense;
  int64_t n_dense = n;
  if (c.has("num_experts")) {
    MixtureOfExperts moe = read_experts(c, {});
    read_routing(c, moe, kSigmoidNormalised);
    moe.router_bias = c.flag_or("use_expert_bias", true);
    rest = moe;
    n_dense = c.count_or("num_dense_layers", 2, kMaybeNone);
  }
  for (const bool is_full : full) {
    const FeedForward ff = n_layers(m) < n_dense ? FeedForward(dense) : rest;
    m.layers.push_back(is_full ? layer_of(a, ff) : layer_of(conv, ff));
  }
}

void minimax_m1(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  const Attention a = read_attention(c);
  const LightningAttention lightning{a.n_heads, a.head_dim};
  MixtureOfExperts moe =
      read_experts(c, {.n_experts = "num_local_experts", .intermediate_size = "intermediate_size"});
  set_routing(moe, kSoftmaxNormalised);
  for (const int64_t is_full : numbers_per_layer(c, "attn_type_list", layer_count(c), {0, 1})) {
    m.layers.push_back(is_full != 0 ? layer_of(a, moe) : layer_of(lightning, moe));
  }
}

constexpr std::array kTable{
    Family{"qwen3_next", "qwen3next", qwen_delta_net},
    Family{"qwen3_5", "qwen35", qwen_delta_net},
    Family{"qwen3_5_text", "qwen35", qwen_delta_net},
    Family{"qwen3_5_moe", "qwen35moe", qwen_delta_net},
    Family{"qwen3_5_moe_text", "qwen35moe", qwen_delta_net},
    Family{"kimi_linear", "kimi-linear", kimi_linear},
    Family{"kimi_k3", "kimi-k3", kimi_linear},
    Family{"falcon_h1", "falcon-h1", falcon_h1},
    Family{"granitemoehybrid", "granitehybrid", granite_hybrid},
    Family{"jamba", "jamba", jamba},
    Family{"nemotron_h", "nemotron_h", nemotron_h},
    Family{"lfm2", "lfm2", lfm2},
    Family{"lfm2_moe", "lfm2moe", lfm2},
    Family{"minimax_m1", "minimax-01", minimax_m1},
};

}  // namespace

std::span<const Family> hybrid_families() {
  return kTable;
}

}  // namespace kvfathom::hf
