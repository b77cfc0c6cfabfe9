// Models without attention: Mamba, Mamba-2, RWKV.
#include <array>
#include <string>

#include "model/io/hf/translate.h"
#include "model/rounding.h"

namespace kvfathom::hf {
namespace {

using std::int64_t;

/// A state has no trained length; llama.cpp's converter writes this one, and so do we.
constexpr int64_t kNoLimitTokens = int64_t{1} << 20;

LayerSpec mixer_only(const Mixer& mixer) {
  LayerSpec layer = layer_of(mixer, NoFeedForward{});
  layer.pre_feed_forward_norm = false;
  return layer;
}

void mamba(const Reader& c, ModelSpec& m) {
  read_shape(c, m, true);
  m.trained_context_tokens = kNoLimitTokens;
  const Mamba mixer{.d_inner = c.has("intermediate_size")
                                   ? c.count("intermediate_size", kWidth)
                                   : c.count_or("expand", 2, {1, 64}) * m.hidden_size,
                    .d_state = c.count_or("state_size", 16, kWidth),
                    .d_conv = c.count_or("conv_kernel", 4, {1, 64}),
                    .dt_rank = c.is_text("time_step_rank") || !c.has("time_step_rank")
                                   ? (m.hidden_size + 15) / 16
                                   : c.count("time_step_rank", kWidth)};
  repeat(c, m, mixer_only(mixer));
}

void falcon_mamba(const Reader& c, ModelSpec& m) {
  mamba(c, m);
  for (LayerSpec& layer : m.layers) {
    std::get<Mamba>(layer.mixer).dt_b_c_norm = true;
  }
}

void mamba2(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  m.trained_context_tokens = kNoLimitTokens;
  const int64_t n_heads = c.count("num_heads", kHeads);
  const Mamba2 mixer{.d_inner = n_heads * c.count("head_dim", kHeadDim),
                     .d_state = c.count_or("state_size", 128, kWidth),
                     .d_conv = c.count_or("conv_kernel", 4, {1, 64}),
                     .n_heads = n_heads,
                     .n_groups = c.count_or("n_groups", 8, kHeads),
                     .conv_bias = c.flag_or("use_conv_bias", true)};
  repeat(c, m, mixer_only(mixer));
}

/// The format of the mamba_ssm package: d_model, n_layer, ssm_cfg; all else is its default, and
/// the vocabulary is padded.
void state_spaces(const Reader& c, ModelSpec& m) {
  m.hidden_size = c.count("d_model", kWidth);
  const int64_t multiple = c.count_or("pad_vocab_size_multiple", 8, {1, 1 << 20});
  m.vocab_size = round_up(c.count("vocab_size", kVocab), multiple);
  m.trained_context_tokens = kNoLimitTokens;
  m.tied_embeddings = c.flag_or("tie_embeddings", true);
  const Reader ssm = c.object("ssm_cfg");
  const std::string layer = ssm.text_or("layer", "Mamba1");
  const int64_t d_inner = ssm.count_or("expand", 2, {1, 64}) * m.hidden_size;
  const int64_t d_conv = ssm.count_or("d_conv", 4, {1, 64});
  Mixer mixer;
  if (layer == "Mamba2") {
    const int64_t head_dim = ssm.count_or("headdim", 64, kHeadDim);
    mixer = Mamba2{.d_inner = d_inner,
                   .d_state = ssm.count_or("d_state", 128, kWidth),
                   .d_conv = d_conv,
                   .n_heads = d_inner / head_dim,
                   .n_groups = ssm.count_or("ngroups", 1, kHeads)};
    m.architecture = "mamba2";
  } else if (layer == "Mamba1") {
    mixer = Mamba{.d_inner = d_inner,
                  .d_state = ssm.count_or("d_state", 16, kWidth),
                  .d_conv = d_conv,
                  .dt_rank = (m.hidden_size + 15) / 16};
  } else {
    throw Unsupported(
        c.file() + ": \"ssm_cfg.layer\"", "\"" + layer.substr(0, 40) + "\"", "Mamba1 or Mamba2");
  }
  m.layers.assign(static_cast<std::size_t>(c.count("n_layer", kLayers)), mixer_only(mixer));
}

/// RWKV-5: the checkpoints hold a head of their own, whatever the tie flag says.
void rwkv5(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  m.tied_embeddings = false;
  m.trained_context_tokens = c.count_or("context_length", kNoLimitTokens, kTokens);
  m.norm = NormKind::layer;
  m.embedding_norm = true;
  const int64_t inner = c.count_or("attention_hidden_size", m.hidden_size, kWidth);
  const int64_t head_dim = c.count_or("head_size", 64, kHeadDim);
  // 3.5 widths, down to a multiple of 32.
  const int64_t width = c.count_or("intermediate_size", m.hidden_size * 7 / 2 / 32 * 32, kWidth);
  repeat(c, m, layer_of(Rwkv{5, inner / head_dim, head_dim}, DenseFeedForward{width, false}));
}

constexpr std::array kTable{
    Family{"mamba", "mamba", mamba},
    Family{"falcon_mamba", "mamba", falcon_mamba},
    Family{"mamba2", "mamba2", mamba2},
    Family{"state-spaces", "mamba", state_spaces},
    Family{"rwkv5", "rwkv5", rwkv5},
};

}  // namespace

std::span<const Family> recurrent_families() {
  return kTable;
}

}  // namespace kvfathom::hf
