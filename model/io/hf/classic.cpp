// Older transformers with names, biases and positions of their own.
#include <algorithm>
#include <array>
#include <string>

#include "model/io/hf/translate.h"

namespace kvfathom::hf {
namespace {

using std::int64_t;

/// Heads that divide the width, with biases everywhere.
Attention biased_attention(const Reader& c, const char* heads_key, int64_t hidden, int64_t n_kv) {
  const int64_t n_heads = c.count(heads_key, kHeads);
  if (hidden % n_heads != 0 || hidden / n_heads > kHeadDim.max) {
    throw c.error(
        heads_key,
        std::to_string(n_heads) + " heads do not split a width of " + std::to_string(hidden),
        "a divisor of the width");
  }
  return {.n_heads = n_heads,
          .n_kv_heads = n_kv == 0 ? n_heads : n_kv,
          .head_dim = hidden / n_heads,
          .v_head_dim = hidden / n_heads,
          .bias = true,
          .output_bias = true};
}

void read_gpt2_shape(const Reader& c, ModelSpec& m) {
  m.hidden_size = c.count("n_embd", kWidth);
  m.vocab_size = c.count("vocab_size", kVocab);
  m.trained_context_tokens = c.count_or("n_positions", 1024, kTokens);
  m.tied_embeddings = c.flag_or("tie_word_embeddings", true);
  m.norm = NormKind::layer;
}

DenseFeedForward gpt2_feed_forward(const Reader& c, const ModelSpec& m) {
  return {c.count_or("n_inner", 4 * m.hidden_size, kWidth), false, true};
}

void gpt2_with(const Reader& c, ModelSpec& m, int64_t n_kv_heads) {
  read_gpt2_shape(c, m);
  m.position_embeddings = m.trained_context_tokens;
  const Attention a = biased_attention(c, "n_head", m.hidden_size, n_kv_heads);
  m.layers.assign(static_cast<std::size_t>(c.count("n_layer", kLayers)),
                  layer_of(a, gpt2_feed_forward(c, m)));
}

void gpt2(const Reader& c, ModelSpec& m) {
  gpt2_with(c, m, 0);
}

void gpt_bigcode(const Reader& c, ModelSpec& m) {
  gpt2_with(c, m, c.flag_or("multi_query", true) ? 1 : 0);
}

void gpt_neox(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  m.norm = NormKind::layer;
  Attention a = biased_attention(c, "num_attention_heads", m.hidden_size, 0);
  a.bias = a.output_bias = c.flag_or("attention_bias", true);
  a.rope_dim = static_cast<int64_t>(static_cast<double>(a.head_dim) *
                                    std::min(1.0, std::max(0.0, c.number_or("rotary_pct", 0.25))));
  LayerSpec layer =
      layer_of(a, DenseFeedForward{c.count("intermediate_size", kWidth), false, true});
  layer.parallel_residual = c.flag_or("use_parallel_residual", true);  // two norms all the same
  repeat(c, m, layer);
}

/// OPT's position table has two rows more than positions.
void opt(const Reader& c, ModelSpec& m) {
  read_shape(c, m, true);
  m.norm = NormKind::layer;
  m.position_embeddings = c.count("max_position_embeddings", kTokens) + 2;
  if (c.count_or("word_embed_proj_dim", m.hidden_size, kWidth) != m.hidden_size) {
    throw Unsupported(c.file() + ": \"word_embed_proj_dim\"",
                      "embeddings of another width than the layers",
                      "hidden_size");
  }
  const Attention a = biased_attention(c, "num_attention_heads", m.hidden_size, 0);
  repeat(c, m, layer_of(a, DenseFeedForward{c.count("ffn_dim", kWidth), false, true}));
}

/// Falcon: attention and feed-forward in parallel, under one norm in the 7B, two from the 40B on.
void falcon(const Reader& c, ModelSpec& m) {
  read_shape(c, m, true);
  if (m.trained_context_tokens == 0) {
    m.trained_context_tokens = 2048;  // FalconConfig's default
  }
  m.norm = NormKind::layer;
  const bool newer = c.flag_or("new_decoder_architecture", false);
  const int64_t n_kv = newer                            ? c.count("num_kv_heads", kHeads)
                       : c.flag_or("multi_query", true) ? 1
                                                        : 0;
  Attention a = biased_attention(c, "num_attention_heads", m.hidden_size, n_kv);
  a.bias = a.output_bias = c.flag_or("bias", false);
  a.rope_dim = c.flag_or("alibi", false) ? 0 : a.head_dim;
  const DenseFeedForward ff{
      c.count_or("ffn_hidden_size", 4 * m.hidden_size, kWidth), false, a.bias};
  LayerSpec layer = layer_of(a, ff);
  layer.parallel_residual = newer || c.flag_or("parallel_attn", true);
  layer.pre_feed_forward_norm = newer || !layer.parallel_residual;
  repeat(c, m, layer);
}

LayerSpec phi2_layer(Attention a, const DenseFeedForward& ff, int64_t rope_dim) {
  a.rope_dim = rope_dim;
  LayerSpec layer = layer_of(a, ff);
  layer.parallel_residual = true;
  layer.pre_feed_forward_norm = false;
  return layer;
}

/// Phi-1.5 and Phi-2 under their first names.
void phi_msft(const Reader& c, ModelSpec& m) {
  read_gpt2_shape(c, m);
  m.tied_embeddings = c.flag_or("tie_word_embeddings", false);
  m.output_bias = true;
  const Attention a =
      biased_attention(c, "n_head", m.hidden_size, c.count_or("n_head_kv", 0, kHeads));
  m.layers.assign(static_cast<std::size_t>(c.count("n_layer", kLayers)),
                  phi2_layer(a, gpt2_feed_forward(c, m), c.count("rotary_dim", kHeadDim)));
}

void phi(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  m.norm = NormKind::layer;
  m.output_bias = true;
  Attention a = read_attention(c);
  a.bias = a.output_bias = true;
  const int64_t rope_dim = c.has("partial_rotary_factor") ? a.rope_dim : a.head_dim / 2;
  repeat(c, m, phi2_layer(a, {c.count("intermediate_size", kWidth), false, true}, rope_dim));
}

/// ChatGLM: names of its own; fields under the usual names in the same file mean nothing.
void chatglm(const Reader& c, ModelSpec& m) {
  m.hidden_size = c.count("hidden_size", kWidth);
  m.vocab_size = c.count("padded_vocab_size", kVocab);
  m.trained_context_tokens = c.count("seq_length", kTokens);
  m.tied_embeddings = c.flag_or("tie_word_embeddings", false);
  const int64_t n_heads = c.count("num_attention_heads", kHeads);
  const int64_t head_dim = c.count("kv_channels", kHeadDim);
  const Attention a{.n_heads = n_heads,
                    .n_kv_heads = c.flag_or("multi_query_attention", false)
                                      ? c.count("multi_query_group_num", {1, n_heads})
                                      : n_heads,
                    .head_dim = head_dim,
                    .v_head_dim = head_dim,
                    .bias = c.flag_or("add_qkv_bias", false) || c.flag_or("add_bias_linear", false),
                    .output_bias = c.flag_or("add_bias_linear", false),
                    .rope_dim = head_dim / 2};
  const DenseFeedForward ff{c.count("ffn_hidden_size", kWidth), true, a.output_bias};
  m.layers.assign(static_cast<std::size_t>(c.count("num_layers", kLayers)), layer_of(a, ff));
}

constexpr std::array kTable{
    Family{"gpt2", "gpt2", gpt2},
    Family{"gpt_bigcode", "starcoder", gpt_bigcode},
    Family{"gpt_neox", "gptneox", gpt_neox},
    Family{"opt", "opt", opt},
    Family{"falcon", "falcon", falcon},
    Family{"phi-msft", "phi2", phi_msft},
    Family{"phi", "phi2", phi},
    Family{"chatglm", "chatglm", chatglm},
};

}  // namespace

std::span<const Family> classic_families() {
  return kTable;
}

}  // namespace kvfathom::hf
