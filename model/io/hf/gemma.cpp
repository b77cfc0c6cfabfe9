// The Gemma family: windows between global layers, norms on both sides, K and V shared by the
// last layers of the small ones.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "model/io/hf/towers.h"
#include "model/io/hf/translate.h"

namespace kvfathom::hf {
namespace {

using std::int64_t;

void read_gemma_shape(const Reader& c, ModelSpec& m) {
  read_shape(c, m, true);
  m.embedding_scale = std::sqrt(static_cast<double>(m.hidden_size));
  m.logit_softcap = c.has("final_logit_softcapping");
  m.attention_softcap = c.has("attn_logit_softcapping");
}

LayerSpec with_both_norms(const Attention& a, const FeedForward& ff) {
  LayerSpec layer = layer_of(a, ff);
  layer.post_mixer_norm = layer.post_feed_forward_norm = true;
  return layer;
}

void gemma(const Reader& c, ModelSpec& m) {
  read_gemma_shape(c, m);
  repeat(c, m, layer_of(read_attention(c), read_dense(c)));
}

/// Every other layer, from the first, looks through a window: a rule of the class, in no file.
void gemma2(const Reader& c, ModelSpec& m) {
  read_gemma_shape(c, m);
  repeat(c, m, with_both_norms(read_attention(c), read_dense(c)));
  const int64_t window = c.count_or("sliding_window", 4096, kTokens);
  for (std::size_t i = 0; i < m.layers.size(); i += 2) {
    attention_of(m.layers[i])->window_tokens = window;
  }
}

/// Gemma3TextConfig has defaults for all but the widths, and the 4B's file relies on them.
void gemma3(const Reader& c, ModelSpec& m) {
  m.hidden_size = c.count("hidden_size", kWidth);
  m.vocab_size = c.count_or("vocab_size", 262208, kVocab);
  m.trained_context_tokens = c.count_or("max_position_embeddings", 131072, kTokens);
  m.tied_embeddings = c.flag_or("tie_word_embeddings", true);
  m.embedding_scale = std::sqrt(static_cast<double>(m.hidden_size));
  Attention a;
  a.n_heads = c.count_or("num_attention_heads", 8, kHeads);
  a.n_kv_heads = c.count_or("num_key_value_heads", 4, kHeads);
  if (a.n_heads % a.n_kv_heads != 0) {
    throw c.error("num_key_value_heads",
                  std::to_string(a.n_kv_heads) + " does not divide the " +
                      std::to_string(a.n_heads) + " query heads",
                  "a divisor of num_attention_heads");
  }
  a.head_dim = a.v_head_dim = a.rope_dim = c.count_or("head_dim", 256, kHeadDim);
  a.qk_norm = QkNorm::per_head;
  repeat(c, m, with_both_norms(a, read_dense(c)));
  const int64_t window = c.count_or("sliding_window", 4096, kTokens);
  if (c.has("layer_types")) {
    apply_layer_types(c, m, window);
  } else {
    const auto every =
        static_cast<std::size_t>(c.count_or("sliding_window_pattern", 6, {1, kLayers.max}));
    for (std::size_t i = 0; i < m.layers.size(); ++i) {
      if ((i + 1) % every != 0) {
        attention_of(m.layers[i])->window_tokens = window;
      }
    }
  }
  add_siglip_tower(c, m);
}

/// Turns the last `num_kv_shared_layers` layers into readers of the last layer of their own kind
/// (sliding or full) that still writes a cache.
void share_last_layers(const Reader& c, ModelSpec& m, const std::vector<std::string>& types) {
  const int64_t shared = c.count_or("num_kv_shared_layers", 0, {0, n_layers(m) - 1});
  const auto first = static_cast<std::size_t>(n_layers(m) - shared);
  for (std::size_t i = first; i < m.layers.size(); ++i) {
    const auto from =
        std::find(types.rend() - static_cast<std::ptrdiff_t>(first), types.rend(), types[i]);
    if (from == types.rend()) {
      throw c.error("num_kv_shared_layers",
                    std::to_string(shared) + " leaves no \"" + types[i] + "\" layer to share with",
                    "fewer shared layers");
    }
    const auto with_layer = types.rend() - from - 1;
    m.layers[i].mixer = SharedAttention{with_layer, *attention_of(m.layers[i])};
  }
}

void gemma3n(const Reader& c, ModelSpec& m) {
  read_gemma_shape(c, m);
  m.per_layer_embedding_size = c.count("hidden_size_per_layer_input", kWidth);
  m.altup_inputs = c.count("altup_num_inputs", {1, 64});
  m.laurel_rank = c.count("laurel_rank", kWidth);
  Attention a = read_attention(c);
  a.qk_norm = QkNorm::per_head;
  const int64_t n = layer_count(c);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t width = per_layer(c, "intermediate_size", static_cast<std::size_t>(i), kWidth);
    m.layers.push_back(with_both_norms(a, DenseFeedForward{width}));
  }
  apply_layer_types(c, m, c.count("sliding_window", kTokens));
  share_last_layers(c, m, names_per_layer(c, "layer_types", n));
  add_gemma3n_towers(c, m);
}

/// Global layers have heads of their own width and number, and in the larger models no V
/// projection: V is K before its rotation.
Attention gemma4_attention(const Reader& c, bool global) {
  Attention a = read_attention(c);
  a.qk_norm = QkNorm::per_head;
  if (global) {
    a.head_dim = a.v_head_dim = a.rope_dim = c.count_or("global_head_dim", a.head_dim, kHeadDim);
    a.n_kv_heads = c.count_or("num_global_key_value_heads", a.n_kv_heads, {1, a.n_heads});
    a.v_is_k = c.flag_or("attention_k_eq_v", false);
  } else {
    a.window_tokens = c.count("sliding_window", kTokens);
  }
  return a;
}

void gemma4(const Reader& c, ModelSpec& m) {
  read_gemma_shape(c, m);
  m.rotary_factors = RotaryFactors::one;
  m.per_layer_embedding_size = c.count_or("hidden_size_per_layer_input", 0, kMaybeNone);
  const std::vector<std::string> types = names_per_layer(c, "layer_types", layer_count(c));
  const Attention local = gemma4_attention(c, false);
  const Attention global = gemma4_attention(c, true);
  const DenseFeedForward dense = read_dense(c);
  const int64_t shared = c.count_or("num_kv_shared_layers", 0, {0, kLayers.max});
  const bool wide = c.flag_or("use_double_wide_mlp", false);
  FeedForward experts = dense;
  if (c.flag_or("enable_moe_block", false)) {
    MixtureOfExperts moe = read_experts(c, {.n_experts_per_token = "top_k_experts"});
    set_routing(moe, kSoftmaxNormalised);
    moe.dense_intermediate_size = dense.intermediate_size;
    experts = moe;
  }
  for (std::size_t i = 0; i < types.size(); ++i) {
    const bool shares = static_cast<int64_t>(types.size() - i) <= shared;
    const FeedForward ff = wide && shares ? DenseFeedForward{2 * dense.intermediate_size} : experts;
    const bool is_global = types[i] == "full_attention";
    if (!is_global && types[i] != "sliding_attention") {
      throw c.error("layer_types",
                    "\"" + types[i].substr(0, 40) + "\" is no kind of layer here",
                    "full_attention or sliding_attention");
    }
    m.layers.push_back(with_both_norms(is_global ? global : local, ff));
  }
  share_last_layers(c, m, types);
  add_gemma4_towers(c, m);
}

constexpr std::array kTable{
    Family{"gemma", "gemma", gemma},
    Family{"gemma2", "gemma2", gemma2},
    Family{"gemma3", "gemma3", gemma3},
    Family{"gemma3_text", "gemma3", gemma3},
    Family{"gemma3n", "gemma3n", gemma3n},
    Family{"gemma3n_text", "gemma3n", gemma3n},
    Family{"gemma4", "gemma4", gemma4},
    Family{"gemma4_text", "gemma4", gemma4},
};

}  // namespace

std::span<const Family> gemma_families() {
  return kTable;
}

}  // namespace kvfathom::hf
