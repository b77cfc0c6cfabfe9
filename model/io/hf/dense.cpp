// Plain transformers: one kind of attention, one dense feed-forward.
#include <array>

#include "model/io/hf/towers.h"
#include "model/io/hf/translate.h"

namespace kvfathom::hf {
namespace {

using std::int64_t;

/// Whether the checkpoint's rotary scaling becomes a stored table of factors (Llama 3.1's rule).
void read_rotary_factors(const Reader& c, ModelSpec& m) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!c.is_object(key)) {
      continue;
    }
    const Reader scaling = c.object(key);
    const char* const type = scaling.is_text("rope_type") ? "rope_type" : "type";
    if (scaling.is_text(type) && scaling.text(type) == "llama3") {
      m.rotary_factors = RotaryFactors::one;
    } else if (scaling.is_list("long_factor")) {
      m.rotary_factors = RotaryFactors::long_and_short;
    }
  }
}

/// A window on every layer, where the file sets one shorter than the model's context.
void read_window(const Reader& c, ModelSpec& m) {
  if (const auto window = c.maybe_count("sliding_window", kTokens); window) {
    for (LayerSpec& layer : m.layers) {
      if (Attention* const a = attention_of(layer); a != nullptr) {
        a->window_tokens = window;
      }
    }
  }
}

void llama(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention a = read_attention(c);
  a.output_bias = a.bias;
  repeat(c, m, layer_of(a, read_dense(c)));
  read_rotary_factors(c, m);
}

void mistral(const Reader& c, ModelSpec& m) {
  llama(c, m);
  if (m.trained_context_tokens == 0) {
    m.trained_context_tokens = 131072;  // MistralConfig's default
  }
  read_window(c, m);
  if (c.is_object("rope_parameters")) {  // Ministral 3
    m.attention_temperature =
        c.object("rope_parameters").number_or("llama_4_scaling_beta", 0.0) != 0.0;
  }
  add_pixtral_tower(c, m);
}

void internlm2(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention a = read_attention(c);
  a.bias = c.flag_or("bias", false);
  a.output_bias = a.bias;
  repeat(c, m, layer_of(a, read_dense(c)));
}

void smollm3(const Reader& c, ModelSpec& m) {
  read_shape(c, m, true);
  repeat(c, m, layer_of(read_attention(c), read_dense(c)));
}

void qwen2(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention a = read_attention(c);
  a.bias = true;  // by the class, whatever the file says
  repeat(c, m, layer_of(a, read_dense(c)));
  if (c.flag_or("use_sliding_window", false)) {
    const int64_t window = c.count("sliding_window", kTokens);
    const int64_t first = c.count_or("max_window_layers", n_layers(m), {0, kLayers.max});
    for (int64_t i = first; i < n_layers(m); ++i) {
      attention_of(m.layers[static_cast<std::size_t>(i)])->window_tokens = window;
    }
  }
}

void mimo(const Reader& c, ModelSpec& m) {
  qwen2(c, m);
  add_mtp(m, m.layers.front(), c.count_or("num_nextn_predict_layers", 0, {0, 16}), false);
}

void qwen3(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention a = read_attention(c);
  a.qk_norm = QkNorm::per_head;
  repeat(c, m, layer_of(a, read_dense(c)));
  add_qwen_tower(c, m);
}

void seed_oss(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention a = read_attention(c);
  a.bias = c.flag_or("attention_bias", true);
  a.output_bias = c.flag_or("attention_out_bias", false);
  repeat(c, m, layer_of(a, read_dense(c)));
}

void granite(const Reader& c, ModelSpec& m) {
  llama(c, m);
  m.embedding_scale = c.number_or("embedding_multiplier", 1.0);
  m.residual_scale = c.number_or("residual_multiplier", 1.0);
  m.logit_scale = granite_logit_scale(c);
}

/// OLMo-2 and OLMo-3: norms behind the mixer and the feed-forward only, q and k across heads.
void olmo(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention a = read_attention(c);
  a.qk_norm = QkNorm::all_heads;
  LayerSpec layer = layer_of(a, read_dense(c));
  layer.pre_mixer_norm = layer.pre_feed_forward_norm = false;
  layer.post_mixer_norm = layer.post_feed_forward_norm = true;
  repeat(c, m, layer);
  if (c.has("layer_types")) {
    apply_layer_types(c, m, c.count("sliding_window", kTokens));
  }
}

/// EXAONE 4: windows by layer_types, or by a pattern string such as "LLLG" (L local, G global),
/// repeated over the layers; the last layer is always global.
void exaone4(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention a = read_attention(c);
  a.qk_norm = QkNorm::per_head;
  LayerSpec layer = layer_of(a, read_dense(c));
  layer.pre_mixer_norm = layer.pre_feed_forward_norm = false;
  layer.post_mixer_norm = layer.post_feed_forward_norm = true;
  repeat(c, m, layer);
  const auto window = c.maybe_count("sliding_window", kTokens);
  if (!window) {
    return;
  }
  if (c.has("layer_types")) {
    apply_layer_types(c, m, *window);
    return;
  }
  const std::string pattern = c.text("sliding_window_pattern");
  if (pattern.empty() || pattern.find_first_not_of("LG") != std::string::npos) {
    throw c.error("sliding_window_pattern",
                  c.shown("sliding_window_pattern") + " is not understood",
                  "letters L (local) and G (global)");
  }
  for (std::size_t i = 0; i + 1 < m.layers.size(); ++i) {
    if (pattern[i % pattern.size()] == 'L') {
      attention_of(m.layers[i])->window_tokens = window;
    }
  }
}

void phi3(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  repeat(c, m, layer_of(read_attention(c), read_dense(c)));
  read_rotary_factors(c, m);
  read_window(c, m);
}

void stablelm(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  m.norm = NormKind::layer;
  Attention a = read_attention(c);
  a.bias = c.flag_or("use_qkv_bias", false);
  if (!c.has("partial_rotary_factor")) {
    a.rope_dim = a.head_dim / 4;  // StableLmConfig's default of a quarter
  }
  a.qk_norm = c.flag_or("qk_layernorm", false) ? QkNorm::each_head : QkNorm::none;
  LayerSpec layer = layer_of(a, read_dense(c));
  layer.parallel_residual = c.flag_or("use_parallel_residual", false);
  layer.pre_feed_forward_norm = !layer.parallel_residual;
  repeat(c, m, layer);
}

void starcoder2(const Reader& c, ModelSpec& m) {
  read_shape(c, m, true);
  m.norm = NormKind::layer;
  Attention a = read_attention(c);
  a.bias = a.output_bias = c.flag_or("use_bias", true);
  DenseFeedForward ff = read_dense(c);
  ff.gated = false;
  ff.bias = a.bias;
  repeat(c, m, layer_of(a, ff));
  read_window(c, m);
}

/// Command R and Aya: one bias-free LayerNorm serves the parallel attention and feed-forward.
void cohere(const Reader& c, ModelSpec& m) {
  read_shape(c, m, true);
  m.norm = NormKind::layer_no_bias;
  m.logit_scale = c.number_or("logit_scale", 0.0625);  // CohereConfig's default
  Attention a = read_attention(c);
  a.qk_norm = c.flag_or("use_qk_norm", false) ? QkNorm::each_head : QkNorm::none;
  LayerSpec layer = layer_of(a, read_dense(c));
  layer.parallel_residual = true;
  layer.pre_feed_forward_norm = false;
  repeat(c, m, layer);
}

void cohere2(const Reader& c, ModelSpec& m) {
  cohere(c, m);
  const int64_t window = c.count("sliding_window", kTokens);
  if (c.has("layer_types")) {
    apply_layer_types(c, m, window);
    return;
  }
  const int64_t every = c.count_or("sliding_window_pattern", 4, {1, kLayers.max});
  for (int64_t i = 0; i < n_layers(m); ++i) {
    if ((i + 1) % every != 0) {
      attention_of(m.layers[static_cast<std::size_t>(i)])->window_tokens = window;
    }
  }
}

void muse_glimmer(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  m.logit_softcap = c.has("final_logit_softcapping");
  m.logit_scale = c.number_or("output_multiplier", 1.0);
  Attention a = read_attention(c);
  a.qk_norm = QkNorm::per_head;
  a.gate_width = a.n_heads * a.v_head_dim;
  LayerSpec layer = layer_of(a, read_dense(c));
  layer.post_mixer_norm = layer.post_feed_forward_norm = true;
  repeat(c, m, layer);
  apply_layer_types(c, m, c.count("sliding_window", kTokens));
  add_muse_tower(c, m);
}

/// Nemotron-NAS (DeciLM): each block keeps, shrinks or drops its attention and feed-forward.
void nemotron_nas(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  const int64_t n_heads = c.count("num_attention_heads", kHeads);
  const int64_t head_dim = m.hidden_size / n_heads;
  const std::vector<Reader> blocks = c.objects("block_configs");
  if (static_cast<int64_t>(blocks.size()) != layer_count(c)) {
    throw c.error("block_configs",
                  "a list of " + std::to_string(blocks.size()),
                  "one entry for each of " + std::to_string(layer_count(c)) + " layers");
  }
  for (const Reader& block : blocks) {
    LayerSpec layer;
    const Reader attention = block.object("attention");
    const Reader ffn = block.object("ffn");
    for (const Reader* part : {&attention, &ffn}) {
      if (part->flag_or("replace_with_linear", false)) {
        throw Unsupported(part->file() + ": \"block_configs\"",
                          "a linear layer in place of a block",
                          "blocks that are kept, shrunk or dropped");
      }
    }
    if (!attention.flag_or("no_op", false)) {
      const int64_t group = attention.count("n_heads_in_group", {1, n_heads});
      layer.mixer = Attention{.n_heads = n_heads,
                              .n_kv_heads = n_heads / group,
                              .head_dim = head_dim,
                              .v_head_dim = head_dim,
                              .window_tokens = attention.maybe_count("window_length", kTokens),
                              .rope_dim = head_dim};
    }
    if (!ffn.flag_or("no_op", false)) {
      const double multiple = ffn.number("ffn_mult");
      if (!(multiple > 0.0 && multiple < 64.0)) {
        throw ffn.error("ffn_mult", ffn.shown("ffn_mult") + " is out of range", "0 to 64");
      }
      // DeciLM's rule: two thirds of the multiple, up to the next 256.
      const auto raw =
          static_cast<int64_t>(2.0 * multiple * static_cast<double>(m.hidden_size) / 3.0);
      layer.feed_forward = DenseFeedForward{(raw + 255) / 256 * 256};
    }
    layer.pre_mixer_norm = !std::holds_alternative<NoMixer>(layer.mixer);
    layer.pre_feed_forward_norm = !std::holds_alternative<NoFeedForward>(layer.feed_forward);
    m.layers.push_back(layer);
  }
  read_rotary_factors(c, m);
}

constexpr std::array kTable{
    Family{"llama", "llama", llama},
    Family{"mistral", "llama", mistral},
    Family{"ministral3", "mistral3", mistral},
    Family{"mistral3", "mistral3", mistral},
    Family{"internlm2", "internlm2", internlm2},
    Family{"smollm3", "smollm3", smollm3},
    Family{"qwen2", "qwen2", qwen2},
    Family{"mimo", "mimo", mimo},
    Family{"qwen3", "qwen3", qwen3},
    Family{"qwen3_vl", "qwen3vl", qwen3},
    Family{"qwen3_vl_text", "qwen3vl", qwen3},
    Family{"seed_oss", "seed_oss", seed_oss},
    Family{"granite", "granite", granite},
    Family{"olmo2", "olmo2", olmo},
    Family{"olmo3", "olmo2", olmo},
    Family{"exaone4", "exaone4", exaone4},
    Family{"phi3", "phi3", phi3},
    Family{"stablelm", "stablelm", stablelm},
    Family{"starcoder2", "starcoder2", starcoder2},
    Family{"cohere", "command-r", cohere},
    Family{"cohere2", "cohere2", cohere2},
    Family{"muse_glimmer", "muse-glimmer", muse_glimmer},
    Family{"nemotron-nas", "deci", nemotron_nas},
};

}  // namespace

std::span<const Family> dense_families() {
  return kTable;
}

}  // namespace kvfathom::hf
