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

/// What a tower's config calls its widths, and what its class has where the config is silent.
struct VitKeys {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t n_layers = 0;
  const char* hidden_size_key = "hidden_size";
  const char* intermediate_size_key = "intermediate_size";
  const char* n_layers_key = "num_hidden_layers";
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

Vit read_vit(const Reader& v, const VitKeys& keys) {
  Vit vit;
  vit.hidden_size = v.count_or(keys.hidden_size_key, keys.hidden_size, kWidth);
  vit.intermediate_size = v.count_or(keys.intermediate_size_key, keys.intermediate_size, kWidth);
  vit.n_layers = v.count_or(keys.n_layers_key, keys.n_layers, kLayers);
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
int64_t patches_of(const Reader& v, int64_t patch_pixels, int64_t hidden_size, bool bias) {
  const int64_t side = v.count_or("patch_size", patch_pixels, kPixels);
  return matrix(kColours * side * side, hidden_size, bias);
}

/// Patches of the image that a tower was trained with.
int64_t positions_of(const Reader& v, int64_t image_pixels, int64_t patch_pixels) {
  const int64_t side = v.count_or("image_size", image_pixels, kPositions) /
                       v.count_or("patch_size", patch_pixels, kPixels);
  return side * side;
}

std::optional<Reader> tower_of(const Reader& config, const char* key) {
  return config.is_object(key) ? std::optional(config.object(key)) : std::nullopt;
}

/// What a tower of `vision_config` has, with its projector.
struct Counted {
  int64_t n_parameters = 0;
  int64_t n_layers = 0;
};
using Count = Counted (*)(const Reader& tower, const Reader& config, int64_t out);

void add_vision(const Reader& config, ModelSpec& model, Count count) {
  if (const auto v = tower_of(config, "vision_config")) {
    const Counted tower = count(*v, config, model.hidden_size);
    model.extras.push_back({"vision", tower.n_parameters, tower.n_layers});
  }
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

Counted gemma4_vision(const Reader& v, const Reader& /*config*/, int64_t out) {
  Vit vit = read_vit(v, {768, 3072, 16});
  const int64_t head_dim = v.count_or("head_dim", 64, kHeadDim);
  vit.attention_width = v.count_or("num_attention_heads", 12, kHeads) * head_dim;
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
  return {layers_of(vit) + patches_of(v, 16, h, false) + positions + standardised + h * out,
          vit.n_layers};
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

Counted gemma3n_vision(const Reader& v, const Reader& /*config*/, int64_t out) {
  constexpr const char* kKnown = "mobilenetv5_300m_enc";
  const std::string name = v.text_or("architecture", kKnown);
  if (name != kKnown) {
    throw v.error("architecture", "\"" + name.substr(0, 40) + "\" is no tower known here", kKnown);
  }
  // timm, models/mobilenetv5.py, _gen_mobilenet_v5: stages of 128, 256, 640 and 1280 channels and
  // the adapter that fuses the last two into 2048; published as 294.1 M
  constexpr int64_t kMobileNet = 294'126'912;
  return {kMobileNet + gemma3n_embedder(v, v.count_or("hidden_size", 2048, kWidth), out), 0};
}

void add_gemma3n_audio(const Reader& a, ModelSpec& model) {
  const int64_t width = a.count_or("hidden_size", 1536, kWidth);
  const int64_t n_layers = a.count_or("conf_num_hidden_layers", 12, kLayers);
  const int64_t total = conformer_layers(width,
                                         a.count_or("conf_num_attention_heads", 8, kHeads),
                                         n_layers,
                                         a.count_or("conf_conv_kernel_size", 5, {1, 64})) +
                        subsampling(conv_channels(a, "sscp_conv_channel_size"), width) +
                        gemma3n_embedder(a, width, model.hidden_size);
  model.extras.push_back({"audio", total, n_layers});
}

Counted siglip(const Reader& v, const Reader& /*config*/, int64_t out) {
  const Vit vit = read_vit(v, {768, 3072, 12});
  const int64_t h = vit.hidden_size;
  const int64_t projector = h * out + h;
  return {layers_of(vit) + patches_of(v, 16, h, true) + positions_of(v, 224, 16) * h + 2 * h +
              projector,
          vit.n_layers};
}

// ---- Others ----------------------------------------------------------------------------------

/// Patches of two frames, and mergers of 2 x 2 patches behind a norm of one patch, those of inner
/// layers behind a norm of the merged ones.
Counted qwen(const Reader& v, const Reader& /*config*/, int64_t /*out*/) {
  const Vit vit = read_vit(v, {1152, 4304, 27, "hidden_size", "intermediate_size", "depth"});
  const int64_t h = vit.hidden_size;
  const int64_t frames = v.count_or("temporal_patch_size", 2, {1, 64});
  const int64_t merge = v.count_or("spatial_merge_size", 2, {1, 64});
  const int64_t merged = h * merge * merge;
  const int64_t perceptron = matrix(merged, merged, true) +
                             matrix(merged, v.count_or("out_hidden_size", 3584, kWidth), true);
  const auto taps =
      v.is_list("deepstack_visual_indexes")
          ? static_cast<int64_t>(v.counts("deepstack_visual_indexes", {0, 4096}).size())
          : 0;
  return {layers_of(vit) + frames * patches_of(v, 16, h, false) + h +
              v.count_or("num_position_embeddings", 2304, kWidth) * h + 2 * h + perceptron +
              taps * (2 * merged + perceptron),
          vit.n_layers};
}

/// No biases, no stored positions; patches merged by one matrix, then two.
Counted pixtral(const Reader& v, const Reader& config, int64_t out) {
  Vit vit = read_vit(v, {1024, 4096, 24});
  vit.feed_forward_matrices = 3;
  vit.attention_bias = vit.feed_forward_bias = false;
  vit.values_per_norm = 1;
  const int64_t h = vit.hidden_size;
  const int64_t merge = config.count_or("spatial_merge_size", 2, {1, 64});
  const bool bias = config.flag_or("multimodal_projector_bias", false);
  const int64_t projector =
      h + merge * merge * h * h + matrix(h, out, bias) + matrix(out, out, bias);
  return {layers_of(vit) + patches_of(v, 16, h, false) + h + projector, vit.n_layers};
}

/// One position more than patches, for the class; four patches shuffled into one token as wide as
/// the feed-forward; three matrices from there.
Counted llama4(const Reader& v, const Reader& /*config*/, int64_t out) {
  const Vit vit = read_vit(v, {768, 5632, 34});
  const int64_t h = vit.hidden_size;
  const int64_t middle = v.count_or("projector_input_dim", 4096, kWidth);
  const int64_t wide = v.count_or("projector_output_dim", 4096, kWidth);
  return {layers_of(vit) + patches_of(v, 14, h, false) + (positions_of(v, 448, 14) + 2) * h +
              4 * h + vit.intermediate_size * middle + wide * wide +
              v.count_or("vision_output_dim", 7680, kWidth) * out,
          vit.n_layers};
}

/// Positions in time are computed, those of a grid stored.
Counted moonvit(const Reader& v, const Reader& /*config*/, int64_t out) {
  VitKeys keys{1152, 4304, 27};
  if (v.has("vt_hidden_size")) {
    keys.hidden_size_key = "vt_hidden_size";
    keys.intermediate_size_key = "vt_intermediate_size";
    keys.n_layers_key = "vt_num_hidden_layers";
  }
  Vit vit = read_vit(v, keys);
  const int64_t h = vit.hidden_size;
  vit.attention_width = v.count_or("qkv_hidden_size", h, kWidth);
  vit.attention_bias = v.flag_or("attn_bias", true);
  vit.feed_forward_bias = v.flag_or("linear_bias", true);
  vit.values_per_norm = v.text_or("norm_type", "layernorm") == "rmsnorm" ? 1 : 2;
  const int64_t grid = v.count_or("init_pos_emb_height", 64, kPositions) *
                       v.count_or("init_pos_emb_width", 64, kPositions);
  std::vector<int64_t> kernel{2, 2};
  if (v.is_list("merge_kernel_size")) {
    kernel = v.counts("merge_kernel_size", {1, 64});
  }
  int64_t merged = h;
  for (const int64_t side : kernel) {
    merged *= side;
  }
  const bool second = v.text_or("mm_projector_type", "patchmerger") == "patchmergerv2";
  const int64_t norm = second ? out : 2 * h;
  return {layers_of(vit) + patches_of(v, 14, h, v.flag_or("patch_embed_proj_bias", true)) +
              grid * h + vit.values_per_norm * h + norm + matrix(merged, merged, !second) +
              matrix(merged, out, !second),
          vit.n_layers};
}

Counted muse(const Reader& v, const Reader& config, int64_t out) {
  const Vit vit = read_vit(v, {1536, 8960, 50});
  const int64_t h = vit.hidden_size;
  const int64_t frames = v.count_or("patch_temporal", 2, {1, 64});
  const int64_t merge = v.count_or("merge_size", 2, {1, 64});
  const int64_t grid =
      v.count_or("pos_emb_height", 32, kPositions) * v.count_or("pos_emb_width", 32, kPositions);
  const int64_t wide = config.count_or("projector_hidden_size", 4096, kWidth);
  return {layers_of(vit) + frames * patches_of(v, 14, h, false) + grid * h + 4 * h +
              merge * merge * h * wide + wide * wide + wide * out,
          vit.n_layers};
}

}  // namespace

/// transformers, models/siglip/modeling_siglip.py (without its head) and Gemma3MultiModalProjector.
void add_siglip_tower(const Reader& config, ModelSpec& model) {
  add_vision(config, model, siglip);
}

/// transformers, models/gemma4/modular_gemma4.py (033b1a82): Gemma4VisionModel, Gemma4AudioModel
/// and a Gemma4MultimodalEmbedder each.
void add_gemma4_towers(const Reader& config, ModelSpec& model) {
  add_vision(config, model, gemma4_vision);
  if (const auto a = tower_of(config, "audio_config")) {
    add_gemma4_audio(*a, model);
  }
}

/// transformers, models/gemma3n/modeling_gemma3n.py: Gemma3nAudioEncoder, and a tower of the timm
/// library that the config only names.
void add_gemma3n_towers(const Reader& config, ModelSpec& model) {
  add_vision(config, model, gemma3n_vision);
  if (const auto a = tower_of(config, "audio_config")) {
    add_gemma3n_audio(*a, model);
  }
}

/// transformers, models/qwen3_vl/modeling_qwen3_vl.py.
void add_qwen_tower(const Reader& config, ModelSpec& model) {
  add_vision(config, model, qwen);
}

/// transformers, models/pixtral/modeling_pixtral.py and Mistral3MultiModalProjector.
void add_pixtral_tower(const Reader& config, ModelSpec& model) {
  add_vision(config, model, pixtral);
}

/// transformers, models/llama4/modeling_llama4.py.
void add_llama4_tower(const Reader& config, ModelSpec& model) {
  add_vision(config, model, llama4);
}

/// vllm/model_executor/models/kimi_k25_vit.py (055e47c2): MoonViT3dPretrainedModel and
/// KimiK25MultiModalProjector.
void add_moonvit_tower(const Reader& config, ModelSpec& model) {
  add_vision(config, model, moonvit);
}

/// transformers, models/muse_glimmer/modular_muse_glimmer.py (0173fbba): MuseGlimmerVisionModel,
/// MuseGlimmerVisionAdapter and the projection behind it.
void add_muse_tower(const Reader& config, ModelSpec& model) {
  add_vision(config, model, muse);
}

}  // namespace kvfathom::hf
