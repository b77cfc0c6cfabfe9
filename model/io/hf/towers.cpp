#include "model/io/hf/towers.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "model/io/hf/translate.h"

namespace kvfathom::hf {
namespace {

using std::int64_t;

constexpr Range kPixels{1, 4096};
constexpr Range kPositions{1, 1 << 16};
constexpr int64_t kColours = 3;

/// What a tower's config calls its widths.
struct VitKeys {
  const char* hidden_size = "hidden_size";
  const char* intermediate_size = "intermediate_size";
  const char* n_layers = "num_hidden_layers";
};

/// The layers of a vision transformer: attention, a feed-forward, and norms before both.
struct Vit {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t n_layers = 0;
  int64_t attention_width = 0;        ///< of all heads
  int64_t feed_forward_matrices = 2;  ///< three with a gate
  bool attention_bias = true;
  bool feed_forward_bias = true;
  int64_t norms = 2;            ///< of a layer, as wide as its hidden size
  int64_t values_per_norm = 2;  ///< a weight, and the bias of LayerNorm
  int64_t more_per_layer = 0;
};

Vit read_vit(const Reader& v, const VitKeys& keys = {}) {
  Vit vit;
  vit.hidden_size = v.count(keys.hidden_size, kWidth);
  vit.intermediate_size = v.count(keys.intermediate_size, kWidth);
  vit.n_layers = v.count(keys.n_layers, kLayers);
  vit.attention_width = vit.hidden_size;
  return vit;
}

int64_t matrix(int64_t n_in, int64_t n_out, bool bias) {
  return n_in * n_out + (bias ? n_out : 0);
}

int64_t layers_of(const Vit& vit) {
  const int64_t h = vit.hidden_size;
  const int64_t wide = vit.intermediate_size;
  const int64_t attention = 3 * matrix(h, vit.attention_width, vit.attention_bias) +
                            matrix(vit.attention_width, h, vit.attention_bias);
  const int64_t feed_forward =
      (vit.feed_forward_matrices - 1) * matrix(h, wide, vit.feed_forward_bias) +
      matrix(wide, h, vit.feed_forward_bias);
  return vit.n_layers *
         (attention + feed_forward + vit.norms * vit.values_per_norm * h + vit.more_per_layer);
}

/// The convolution, or matrix, that embeds one square patch.
int64_t patches_of(const Reader& v, int64_t hidden_size, bool bias) {
  const int64_t side = v.count_or("patch_size", 14, kPixels);
  return matrix(kColours * side * side, hidden_size, bias);
}

std::optional<Reader> tower_of(const Reader& config, const char* key) {
  return config.is_object(key) ? std::optional(config.object(key)) : std::nullopt;
}

void add_vision(ModelSpec& model, int64_t n_parameters, int64_t n_layers) {
  model.extras.push_back({"vision", n_parameters, n_layers});
}

// ---- Gemma -----------------------------------------------------------------------------------

/// What a conformer has in every layer (transformers, models/gemma4/modular_gemma4.py and
/// models/gemma3n: Gemma4AudioLayer): two feed-forwards of four times the width with two norms
/// each, attention with a matrix of relative positions, a depthwise convolution between two
/// matrices with two norms, three norms around them.
int64_t conformer_layers(int64_t width, int64_t n_heads, int64_t n_layers, int64_t kernel) {
  const int64_t feed_forward = 2 * matrix(width, 4 * width, false) + 2 * width;
  const int64_t attention = 5 * width * width + width / n_heads;
  const int64_t convolution = 3 * width * width + kernel * width + 2 * width;
  return n_layers * (2 * feed_forward + attention + convolution + 3 * width);
}

/// Two convolutions of 3 x 3 with a norm each halve time and frequency twice; 128 bands remain as
/// 32 of the last one's channels.
int64_t subsampling(const std::vector<int64_t>& channels, int64_t width) {
  constexpr int64_t kKernel = 9;
  constexpr int64_t kBandsLeft = 32;
  const int64_t first = channels.at(0);
  const int64_t second = channels.at(1);
  return kKernel * first + first + kKernel * first * second + second + kBandsLeft * second * width;
}

std::vector<int64_t> conv_channels(const Reader& a, const char* key) {
  std::vector<int64_t> channels{128, 32};
  if (a.is_list(key)) {
    channels = a.counts(key, kWidth);
  }
  if (channels.size() != 2) {
    throw a.error(key, "a list of " + std::to_string(channels.size()), "two numbers of channels");
  }
  return channels;
}

/// Matrices with bounds (use_clipped_linears) have four of one value each.
constexpr int64_t kBounds = 4;

void add_gemma4_vision(const Reader& v, ModelSpec& model) {
  Vit vit = read_vit(v);
  const int64_t head_dim = v.count_or("head_dim", 64, kHeadDim);
  vit.attention_width = v.count("num_attention_heads", kHeads) * head_dim;
  vit.feed_forward_matrices = 3;
  vit.attention_bias = vit.feed_forward_bias = false;
  vit.norms = 4;
  vit.values_per_norm = 1;
  constexpr int64_t kMatrices = 7;
  vit.more_per_layer =
      2 * head_dim + (v.flag_or("use_clipped_linears", false) ? kMatrices * kBounds : 0);
  const int64_t h = vit.hidden_size;
  const int64_t positions = 2 * v.count_or("position_embedding_size", 10240, kWidth) * h;
  const int64_t standardised = v.flag_or("standardize", false) ? 2 * h : 0;
  add_vision(
      model,
      layers_of(vit) + patches_of(v, h, false) + positions + standardised + h * model.hidden_size,
      vit.n_layers);
}

void add_gemma4_audio(const Reader& a, ModelSpec& model) {
  const int64_t width = a.count_or("hidden_size", 1024, kWidth);
  const int64_t n_layers = a.count_or("num_hidden_layers", 12, kLayers);
  const int64_t out = a.count_or("output_proj_dims", 1536, kWidth);
  constexpr int64_t kMatrices = 10;  // but for the one of relative positions
  const int64_t bounds =
      a.flag_or("use_clipped_linears", true) ? n_layers * kMatrices * kBounds : 0;
  const int64_t total = conformer_layers(width,
                                         a.count_or("num_attention_heads", 8, kHeads),
                                         n_layers,
                                         a.count_or("conv_kernel_size", 5, {1, 64})) +
                        bounds + subsampling(conv_channels(a, "subsampling_conv_channels"), width) +
                        matrix(width, out, true) + out * model.hidden_size;
  model.extras.push_back({"audio", total, n_layers});
}

/// Soft tokens, and hard ones of a small vocabulary, each with a norm, through one matrix.
int64_t gemma3n_embedder(const Reader& tower, int64_t width, int64_t out) {
  return tower.count_or("vocab_size", 128, kVocab) * width + 2 * width + width * out;
}

}  // namespace

/// transformers, models/siglip/modeling_siglip.py (without its head) and Gemma3MultiModalProjector.
void add_siglip_tower(const Reader& config, ModelSpec& model) {
  const auto v = tower_of(config, "vision_config");
  if (!v) {
    return;
  }
  const Vit vit = read_vit(*v);
  const int64_t h = vit.hidden_size;
  const int64_t side =
      v->count_or("image_size", 896, kPositions) / v->count_or("patch_size", 14, kPixels);
  const int64_t projector = h * model.hidden_size + h;
  add_vision(model,
             layers_of(vit) + patches_of(*v, h, true) + side * side * h + 2 * h + projector,
             vit.n_layers);
}

/// transformers, models/gemma4/modular_gemma4.py (033b1a82): Gemma4VisionModel, Gemma4AudioModel
/// and a Gemma4MultimodalEmbedder each.
void add_gemma4_towers(const Reader& config, ModelSpec& model) {
  if (const auto v = tower_of(config, "vision_config")) {
    add_gemma4_vision(*v, model);
  }
  if (const auto a = tower_of(config, "audio_config")) {
    add_gemma4_audio(*a, model);
  }
}

/// transformers, models/gemma3n/modeling_gemma3n.py: Gemma3nAudioEncoder, and a tower of the timm
/// library that the config only names.
void add_gemma3n_towers(const Reader& config, ModelSpec& model) {
  if (const auto v = tower_of(config, "vision_config")) {
    const std::string name = v->text_or("architecture", "mobilenetv5_300m_enc");
    if (name != "mobilenetv5_300m_enc") {
      throw v->error("architecture",
                     "\"" + name.substr(0, 40) + "\" is no tower known here",
                     "mobilenetv5_300m_enc");
    }
    // timm, models/mobilenetv5.py, _gen_mobilenet_v5: stages of 128, 256, 640 and 1280 channels
    // and the adapter that fuses the last two into 2048; published as 294.1 M
    constexpr int64_t kMobileNet = 294'126'912;
    const int64_t width = v->count_or("hidden_size", 2048, kWidth);
    add_vision(model, kMobileNet + gemma3n_embedder(*v, width, model.hidden_size), 0);
  }
  if (const auto a = tower_of(config, "audio_config")) {
    const int64_t width = a->count_or("hidden_size", 1536, kWidth);
    const int64_t n_layers = a->count_or("conf_num_hidden_layers", 12, kLayers);
    const int64_t total = conformer_layers(width,
                                           a->count_or("conf_num_attention_heads", 8, kHeads),
                                           n_layers,
                                           a->count_or("conf_conv_kernel_size", 5, {1, 64})) +
                          subsampling(conv_channels(*a, "sscp_conv_channel_size"), width) +
                          gemma3n_embedder(*a, width, model.hidden_size);
    model.extras.push_back({"audio", total, n_layers});
  }
}

// ---- Others ----------------------------------------------------------------------------------

/// transformers, models/qwen3_vl/modeling_qwen3_vl.py: patches of two frames, and mergers of 2 x 2
/// patches behind a norm of one patch, those of inner layers behind a norm of the merged ones.
void add_qwen_tower(const Reader& config, ModelSpec& model) {
  const auto v = tower_of(config, "vision_config");
  if (!v) {
    return;
  }
  const Vit vit = read_vit(*v, {.n_layers = "depth"});
  const int64_t h = vit.hidden_size;
  const int64_t frames = v->count_or("temporal_patch_size", 2, {1, 64});
  const int64_t merge = v->count_or("spatial_merge_size", 2, {1, 64});
  const int64_t merged = h * merge * merge;
  const int64_t perceptron =
      matrix(merged, merged, true) + matrix(merged, v->count("out_hidden_size", kWidth), true);
  const auto taps =
      v->is_list("deepstack_visual_indexes")
          ? static_cast<int64_t>(v->counts("deepstack_visual_indexes", {0, 4096}).size())
          : 0;
  add_vision(model,
             layers_of(vit) + frames * patches_of(*v, h, false) + h +
                 v->count("num_position_embeddings", kWidth) * h + 2 * h + perceptron +
                 taps * (2 * merged + perceptron),
             vit.n_layers);
}

/// transformers, models/pixtral/modeling_pixtral.py and Mistral3MultiModalProjector: no biases, no
/// stored positions; patches merged by one matrix, then two.
void add_pixtral_tower(const Reader& config, ModelSpec& model) {
  const auto v = tower_of(config, "vision_config");
  if (!v) {
    return;
  }
  Vit vit = read_vit(*v);
  vit.feed_forward_matrices = 3;
  vit.attention_bias = vit.feed_forward_bias = false;
  vit.values_per_norm = 1;
  const int64_t h = vit.hidden_size;
  const int64_t out = model.hidden_size;
  const int64_t merge = config.count_or("spatial_merge_size", 2, {1, 64});
  const bool bias = config.flag_or("multimodal_projector_bias", false);
  const int64_t projector =
      h + merge * merge * h * h + matrix(h, out, bias) + matrix(out, out, bias);
  add_vision(model, layers_of(vit) + patches_of(*v, h, false) + h + projector, vit.n_layers);
}

/// transformers, models/llama4/modeling_llama4.py: one position more than patches, for the class;
/// four patches shuffled into one token as wide as the feed-forward; three matrices from there.
void add_llama4_tower(const Reader& config, ModelSpec& model) {
  const auto v = tower_of(config, "vision_config");
  if (!v) {
    return;
  }
  const Vit vit = read_vit(*v);
  const int64_t h = vit.hidden_size;
  const int64_t side =
      v->count_or("image_size", 448, kPositions) / v->count_or("patch_size", 14, kPixels);
  const int64_t middle = v->count("projector_input_dim", kWidth);
  const int64_t out = v->count("projector_output_dim", kWidth);
  add_vision(model,
             layers_of(vit) + patches_of(*v, h, false) + (side * side + 2) * h + 4 * h +
                 vit.intermediate_size * middle + out * out +
                 v->count("vision_output_dim", kWidth) * model.hidden_size,
             vit.n_layers);
}

/// vllm/model_executor/models/kimi_k25_vit.py (055e47c2): MoonViT3dPretrainedModel and
/// KimiK25MultiModalProjector. Positions in time are computed, those of a grid stored.
void add_moonvit_tower(const Reader& config, ModelSpec& model) {
  const auto v = tower_of(config, "vision_config");
  if (!v) {
    return;
  }
  Vit vit = read_vit(*v,
                     v->has("vt_hidden_size") ? VitKeys{.hidden_size = "vt_hidden_size",
                                                        .intermediate_size = "vt_intermediate_size",
                                                        .n_layers = "vt_num_hidden_layers"}
                                              : VitKeys{});
  const int64_t h = vit.hidden_size;
  vit.attention_width = v->count_or("qkv_hidden_size", h, kWidth);
  vit.attention_bias = v->flag_or("attn_bias", true);
  vit.feed_forward_bias = v->flag_or("linear_bias", true);
  vit.values_per_norm = v->text_or("norm_type", "layernorm") == "rmsnorm" ? 1 : 2;
  const int64_t grid = v->count_or("init_pos_emb_height", 64, kPositions) *
                       v->count_or("init_pos_emb_width", 64, kPositions);
  int64_t merged = h;
  for (const int64_t side : v->counts("merge_kernel_size", {1, 64})) {
    merged *= side;
  }
  const int64_t out = model.hidden_size;
  const bool second = v->text_or("mm_projector_type", "patchmerger") == "patchmergerv2";
  const int64_t norm = second ? out : 2 * h;
  add_vision(model,
             layers_of(vit) + patches_of(*v, h, v->flag_or("patch_embed_proj_bias", true)) +
                 grid * h + vit.values_per_norm * h + norm + matrix(merged, merged, !second) +
                 matrix(merged, out, !second),
             vit.n_layers);
}

/// transformers, models/muse_glimmer/modular_muse_glimmer.py (0173fbba): MuseGlimmerVisionModel,
/// MuseGlimmerVisionAdapter and the projection behind it.
void add_muse_tower(const Reader& config, ModelSpec& model) {
  const auto v = tower_of(config, "vision_config");
  if (!v) {
    return;
  }
  const Vit vit = read_vit(*v);
  const int64_t h = vit.hidden_size;
  const int64_t frames = v->count_or("patch_temporal", 2, {1, 64});
  const int64_t merge = v->count_or("merge_size", 2, {1, 64});
  const int64_t grid =
      v->count("pos_emb_height", kPositions) * v->count("pos_emb_width", kPositions);
  const int64_t wide = config.count("projector_hidden_size", kWidth);
  add_vision(model,
             layers_of(vit) + frames * patches_of(*v, h, false) + grid * h + 4 * h +
                 merge * merge * h * wide + wide * wide + wide * model.hidden_size,
             vit.n_layers);
}

}  // namespace kvfathom::hf
