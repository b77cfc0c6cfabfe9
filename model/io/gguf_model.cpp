#include "model/io/gguf_model.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "model/error.h"
#include "model/io/gguf_layers.h"
#include "model/io/spec_check.h"

namespace kvfathom {
namespace {

constexpr std::string_view kArchitectureKey = "general.architecture";
constexpr GgufRange kVocab{.min = 1, .max = 1 << 28};

std::string_view architecture_name(const GgufKeys& keys) {
  const auto type = keys.text_at("general.type");
  if (type && *type != "model") {
    throw Unsupported(keys.header().path + ": key \"general.type\"",
                      in_quotes(*type),
                      "\"model\", a file that holds a language model");
  }
  const auto name = keys.text_at(kArchitectureKey);
  if (!name) {
    throw InputError(keys.header().path + ": key " + in_quotes(kArchitectureKey),
                     "is missing",
                     "the architecture's name");
  }
  return *name;
}

std::string model_name(const GgufKeys& keys) {
  const auto name = keys.text_at("general.name");
  if (name && !name->empty()) {
    const std::string shown = in_quotes(*name);  // one printable line
    return shown.substr(1, shown.size() - 2);
  }
  const std::string& path = keys.header().path;
  const std::string file = path.substr(path.find_last_of('/') + 1);
  return file.ends_with(".gguf") ? file.substr(0, file.size() - 5) : file;
}

NormKind norm_kind(const GgufKeys& keys, const GgufTensors& tensors) {
  if (keys.number("attention.layer_norm_rms_epsilon")) {
    return NormKind::rms;
  }
  if (!keys.number("attention.layer_norm_epsilon")) {
    throw InputError(
        keys.where("attention.layer_norm_rms_epsilon"), "is missing", "it or layer_norm_epsilon");
  }
  return tensors.find("output_norm.bias") != nullptr ? NormKind::layer : NormKind::layer_no_bias;
}

/// The rows of the embedding; a list of tokens or a vocab_size in the file must agree.
std::int64_t vocab_size(const GgufSource& source) {
  constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens";
  const GgufTensor& embedding = source.tensors.required("token_embd.weight");
  const std::int64_t rows = embedding.shape[1];
  source.tensors.require_shape(embedding, source.hidden_size, rows, "embedding_length");
  if (rows > kVocab.max) {
    source.tensors.refuse(embedding,
                          "shape " + shape_text(embedding),
                          "at most " + std::to_string(kVocab.max) + " tokens");
  }
  const auto listed = source.keys.length_at(kTokensKey);
  const auto said = listed ? listed : source.keys.integer("vocab_size", kVocab);
  if (said && *said != rows) {
    const std::string key = listed ? source.keys.header().path + ": key " + in_quotes(kTokensKey)
                                   : source.keys.where("vocab_size");
    throw InputError(key,
                     std::to_string(*said) + " tokens",
                     std::to_string(rows) + ", the rows of token_embd.weight");
  }
  return rows;
}

void read_norms(const GgufSource& source, std::int64_t layer, LayerSpec& spec) {
  const auto has = [&](std::string_view suffix) { return source.tensors.has(layer, suffix); };
  const bool mixes = !std::holds_alternative<NoMixer>(spec.mixer);
  const bool feeds = !std::holds_alternative<NoFeedForward>(spec.feed_forward);
  const bool ffn_norm = has("ffn_norm.weight") || has("ffn_norm");
  const bool after_attention = has("post_attention_norm.weight");
  const bool after_feed_forward = has("post_ffw_norm.weight");
  // Where no other norm precedes the feed-forward, the one named after attention does
  // (gpt-oss, GLM-4.5, Qwen3-Next).
  const bool between = after_attention && !ffn_norm && !after_feed_forward;
  spec.pre_mixer_norm = mixes && has("attn_norm.weight");
  spec.post_mixer_norm = mixes && after_attention && !between;
  spec.pre_feed_forward_norm = feeds && (ffn_norm || between || has("attn_norm_2.weight") ||
                                         (!mixes && has("attn_norm.weight")));
  spec.post_feed_forward_norm = feeds && after_feed_forward;
  spec.parallel_residual = source.architecture.parallel_residual && mixes && feeds && !ffn_norm;
}

std::vector<LayerSpec> read_layers(const GgufSource& source) {
  const GgufHeads heads = gguf_heads(source);
  const GgufAttentionPlan plan = gguf_attention_plan(source, heads);
  const std::vector<bool> recurrent = gguf_recurrent_layers(source, heads);
  const bool beside = source.architecture.recurrent_layers == GgufRecurrentLayers::beside_attention;
  std::vector<LayerSpec> layers;
  for (std::int64_t i = 0; i < source.n_layers; ++i) {
    LayerSpec layer;
    if (!recurrent[static_cast<std::size_t>(i)]) {
      layer.mixer = gguf_attention(source, heads, plan, i);
    } else {
      layer.mixer = gguf_recurrent(source, heads, i);
    }
    if (beside) {
      const Mixer attention = gguf_attention(source, heads, plan, i);
      if (const auto* a = std::get_if<Attention>(&attention)) {
        layer.mixer = ParallelMixers{.attention = *a, .mamba2 = std::get<Mamba2>(layer.mixer)};
      }
    }
    layer.feed_forward = gguf_feed_forward(source, i);
    read_norms(source, i, layer);
    if (std::holds_alternative<NoMixer>(layer.mixer) &&
        std::holds_alternative<NoFeedForward>(layer.feed_forward) &&
        source.architecture.name != "deci") {
      static_cast<void>(source.tensors.required(i, "ffn_up.weight"));
    }
    layers.push_back(layer);
  }
  return layers;
}

void read_scales(const GgufSource& source, ModelSpec& model) {
  const GgufKeys& keys = source.keys;
  const auto scale = [&](std::string_view key) {
    const double value = keys.number(key).value_or(1.0);
    return value == 0.0 ? 1.0 : value;  // llama.cpp: 0 switches a factor off
  };
  model.embedding_scale = source.architecture.scaled_embedding
                              ? std::sqrt(static_cast<double>(source.hidden_size))
                              : scale("embedding_scale");
  model.residual_scale = scale("residual_scale");
  model.logit_scale = scale("logit_scale");
  model.attention_temperature = source.architecture.name == "llama4" ||
                                keys.number("attention.temperature_scale").value_or(0.0) != 0.0;
  model.attention_softcap = source.architecture.attention_softcap;
  const auto cap = keys.number("final_logit_softcapping");
  model.logit_softcap = cap ? *cap != 0.0 : source.architecture.logit_softcap;
}

/// What Gemma-3n and Gemma-4 have beside their layers.
void read_side_paths(const GgufSource& source, ModelSpec& model) {
  const GgufTensors& tensors = source.tensors;
  if (tensors.find("per_layer_token_embd.weight") != nullptr) {
    model.per_layer_embedding_size = tensors.required("per_layer_proj_norm.weight").shape[0];
  }
  if (const GgufTensor* altup = tensors.find("altup_proj.weight")) {
    model.altup_inputs = altup->shape[2] + 1;
  }
  if (const GgufTensor* laurel = tensors.find(0, "laurel_l.weight")) {
    model.laurel_rank = laurel->shape[1];
  }
}

void read_whole_model(const GgufSource& source, ModelSpec& model) {
  const GgufTensors& tensors = source.tensors;
  model.hidden_size = source.hidden_size;
  model.vocab_size = vocab_size(source);
  model.trained_context_tokens =
      source.keys.required("context_length", {.min = 1, .max = kTokens.max});
  model.norm = norm_kind(source.keys, tensors);
  static_cast<void>(tensors.required(std::string(source.architecture.output_norm) + ".weight"));
  model.tied_embeddings = tensors.find("output.weight") == nullptr;
  for (std::int64_t i = 0; i < source.n_layers; ++i) {
    model.fused_qkv = model.fused_qkv.value_or(false) || tensors.has(i, "attn_qkv.weight");
  }
  model.output_bias = tensors.find("output.bias") != nullptr;
  model.embedding_norm = source.architecture.output_norm != "token_embd_norm" &&
                         tensors.find("token_embd_norm.weight") != nullptr;
  if (const GgufTensor* positions = tensors.find("position_embd.weight")) {
    model.position_embeddings = positions->shape[1];
  }
  if (tensors.find("rope_factors_long.weight") != nullptr) {
    model.rotary_factors = RotaryFactors::long_and_short;
  } else if (tensors.find("rope_freqs.weight") != nullptr) {
    model.rotary_factors = RotaryFactors::one;
  }
  read_scales(source, model);
  read_side_paths(source, model);
}

/// The layer in "blk.<layer>...."; -1 for other names.
std::int64_t layer_of(std::string_view name) {
  std::int64_t layer = -1;
  if (name.starts_with("blk.")) {
    std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  }
  return layer;
}

/// Takes over every tensor; those of layers behind the decoder's are multi-token prediction.
void read_tensors(std::span<const GgufHeader* const> shards,
                  const GgufSource& source,
                  ModelSpec& model) {
  ExtraPart mtp{.kind = "mtp", .n_parameters = 0, .n_layers = source.n_stored - source.n_layers};
  constexpr std::int64_t kMostParameters = 1'000'000'000'000'000;  // 500 times the largest model
  std::int64_t left = kMostParameters;
  for (const GgufHeader* shard : shards) {
    for (const GgufTensor& tensor : shard->tensors) {
      left -= std::min(n_elements(tensor), left);
      if (left == 0) {
        source.tensors.refuse(tensor, "the model passes 1e15 parameters here", "fewer");
      }
      model.tensors.push_back({std::string(tensor.name), tensor.shape, tensor.dtype});
      const std::int64_t layer = layer_of(tensor.name);
      if (layer >= source.n_stored) {
        source.tensors.refuse(tensor,
                              "layer " + std::to_string(layer),
                              "one of " + std::to_string(source.n_stored) + " by block_count");
      }
      if (layer >= source.n_layers) {
        mtp.n_parameters += n_elements(tensor);
      }
    }
  }
  if (mtp.n_layers > 0 && mtp.n_parameters > 0) {
    model.extras.push_back(std::move(mtp));
  }
}

}  // namespace

ModelSpec model_of_gguf(std::span<const GgufHeader* const> shards) {
  const GgufHeader& first = *shards.front();
  const std::string_view name = architecture_name(GgufKeys(first, ""));
  const GgufArchitecture& architecture =
      gguf_architecture(name, first.path + ": key " + in_quotes(kArchitectureKey));
  const GgufKeys keys(first, std::string(name) + ".");
  const GgufTensors tensors(shards);
  const std::int64_t n_stored = keys.required("block_count", kLayerCount);
  const std::int64_t behind =
      keys.integer("nextn_predict_layers", {.min = 0, .max = n_stored - 1}).value_or(0);
  const GgufSource source{.architecture = architecture,
                          .keys = keys,
                          .tensors = tensors,
                          .hidden_size = keys.required("embedding_length", kWidth),
                          .n_layers = n_stored - behind,
                          .n_stored = n_stored};
  ModelSpec model;
  model.name = model_name(keys);
  model.source = first.path;
  model.architecture = name;
  read_whole_model(source, model);
  model.layers = read_layers(source);
  read_tensors(shards, source, model);
  check_layers(model, first.path);
  return model;
}

ModelSpec read_gguf(const std::string& path) {
  const std::vector<GgufFile> files = open_gguf_shards(path);
  std::vector<const GgufHeader*> headers;
  headers.reserve(files.size());
  for (const GgufFile& file : files) {
    headers.push_back(&file.header);
  }
  ModelSpec model = model_of_gguf(headers);
  model.source = path;
  return model;
}

}  // namespace kvfathom
