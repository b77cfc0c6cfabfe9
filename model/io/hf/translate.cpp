#include "model/io/hf/translate.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "model/architecture/parameters.h"

namespace kvfathom::hf {

using std::int64_t;

// ---- Shape and attention ---------------------------------------------------------------------

void read_shape(const Reader& config, ModelSpec& model, bool tied_by_default) {
  model.hidden_size = config.count("hidden_size", kWidth);
  model.vocab_size = config.count("vocab_size", kVocab);
  model.trained_context_tokens = config.count_or("max_position_embeddings", 0, kTokens);
  model.tied_embeddings = config.flag_or("tie_word_embeddings", tied_by_default);
}

int64_t layer_count(const Reader& config) {
  return config.count("num_hidden_layers", kLayers);
}

void repeat(const Reader& config, ModelSpec& model, const LayerSpec& layer) {
  model.layers.assign(static_cast<std::size_t>(layer_count(config)), layer);
}

int64_t rope_dim_of(const Reader& config, int64_t head_dim) {
  if (config.has("rotary_dim")) {
    return config.count("rotary_dim", {0, head_dim});
  }
  double factor = config.number_or("partial_rotary_factor", 1.0);
  if (!config.has("partial_rotary_factor") && config.is_object("rope_parameters")) {
    factor = config.object("rope_parameters").number_or("partial_rotary_factor", 1.0);
  }
  if (!(factor >= 0.0 && factor <= 1.0)) {
    throw config.error("partial_rotary_factor",
                       config.shown("partial_rotary_factor") + " is out of range",
                       "a number from 0 to 1");
  }
  // Whole pairs are rotated; a fraction of a pair is dropped as transformers does.
  return static_cast<int64_t>(static_cast<double>(head_dim) * factor) / 2 * 2;
}

Attention read_attention(const Reader& config) {
  Attention a;
  a.n_heads = config.count("num_attention_heads", kHeads);
  a.n_kv_heads = config.count_or("num_key_value_heads", a.n_heads, kHeads);
  if (a.n_heads % a.n_kv_heads != 0) {
    throw config.error("num_key_value_heads",
                       std::to_string(a.n_kv_heads) + " does not divide the " +
                           std::to_string(a.n_heads) + " query heads",
                       "a divisor of num_attention_heads");
  }
  const char* const key = config.has("attention_head_dim") ? "attention_head_dim" : "head_dim";
  if (config.has(key)) {
    a.head_dim = config.count(key, kHeadDim);
  } else {
    const int64_t hidden = config.count("hidden_size", kWidth);
    if (hidden % a.n_heads != 0 || hidden / a.n_heads > kHeadDim.max) {
      throw config.error("head_dim",
                         "missing, and hidden_size " + std::to_string(hidden) +
                             " does not split into " + std::to_string(a.n_heads) + " heads",
                         "an integer from 1 to " + std::to_string(kHeadDim.max));
    }
    a.head_dim = hidden / a.n_heads;
  }
  a.v_head_dim = a.head_dim;
  a.bias = config.flag_or("attention_bias", false);
  a.rope_dim = rope_dim_of(config, a.head_dim);
  return a;
}

LatentAttention read_latent_attention(const Reader& config) {
  LatentAttention a;
  a.n_heads = config.count("num_attention_heads", kHeads);
  a.q_lora_rank = config.count_or("q_lora_rank", 0, {1, kWidth.max});
  a.kv_lora_rank = config.count("kv_lora_rank", {1, 1 << 16});
  a.qk_nope_head_dim = config.count("qk_nope_head_dim", kHeadDim);
  a.qk_rope_head_dim = config.count("qk_rope_head_dim", {0, kHeadDim.max});
  a.v_head_dim = config.count("v_head_dim", kHeadDim);
  if (config.has("index_topk")) {
    a.indexer = Indexer{config.count("index_n_heads", kHeads),
                        config.count("index_head_dim", kHeadDim),
                        config.count("index_topk", kTokens)};
  }
  return a;
}

// ---- Feed-forward ----------------------------------------------------------------------------

DenseFeedForward read_dense(const Reader& config) {
  DenseFeedForward ff;
  ff.intermediate_size = config.count("intermediate_size", kWidth);
  ff.bias = config.flag_or("mlp_bias", false);
  return ff;
}

int64_t per_layer(const Reader& config, const char* key, std::size_t layer, Range allowed) {
  if (!config.is_list(key)) {
    return config.count(key, allowed);
  }
  const std::vector<int64_t> values = config.counts(key, allowed);
  if (layer >= values.size()) {
    throw config.error(key,
                       "a list of " + std::to_string(values.size()) +
                           " without an entry for layer " + std::to_string(layer),
                       "one entry per layer");
  }
  return values[layer];
}

MixtureOfExperts read_experts(const Reader& config, const ExpertKeys& keys, std::size_t layer) {
  MixtureOfExperts moe;
  moe.n_experts = config.count(keys.n_experts, kExperts);
  moe.n_experts_per_token = per_layer(config, keys.n_experts_per_token, layer, {1, moe.n_experts});
  moe.intermediate_size = per_layer(config, keys.intermediate_size, layer, kWidth);
  if (keys.n_shared_experts != nullptr && config.has(keys.n_shared_experts)) {
    moe.n_shared_experts = per_layer(config, keys.n_shared_experts, layer, {0, kExperts.max});
    moe.shared_intermediate_size = moe.n_shared_experts * moe.intermediate_size;
  }
  if (keys.shared_intermediate_size != nullptr && config.has(keys.shared_intermediate_size)) {
    moe.shared_intermediate_size = config.count(keys.shared_intermediate_size, kMaybeNone);
    moe.n_shared_experts =
        moe.shared_intermediate_size > 0 ? std::max<int64_t>(moe.n_shared_experts, 1) : 0;
  }
  return moe;
}

// ---- Layers ----------------------------------------------------------------------------------

LayerSpec layer_of(const Mixer& mixer, const FeedForward& feed_forward) {
  LayerSpec layer;
  layer.mixer = mixer;
  layer.feed_forward = feed_forward;
  return layer;
}

namespace {

template <typename T>
std::vector<T> cut_to_layers(const Reader& config,
                             const char* key,
                             int64_t n_layers,
                             std::vector<T> values) {
  // Some lists go on over the multi-token-prediction layers; none has more than a few.
  constexpr int64_t kMostExtra = 8;
  const auto n = static_cast<int64_t>(values.size());
  if (n < n_layers || n > n_layers + kMostExtra) {
    throw config.error(key,
                       "a list of " + std::to_string(n),
                       "one entry for each of " + std::to_string(n_layers) + " layers");
  }
  values.resize(static_cast<std::size_t>(n_layers));
  return values;
}

}  // namespace

std::vector<std::string> names_per_layer(const Reader& config, const char* key, int64_t n_layers) {
  return cut_to_layers(config, key, n_layers, config.texts(key));
}

std::vector<int64_t> numbers_per_layer(const Reader& config,
                                       const char* key,
                                       int64_t n_layers,
                                       Range allowed) {
  return cut_to_layers(config, key, n_layers, config.counts(key, allowed));
}

void apply_layer_types(const Reader& config, ModelSpec& model, int64_t window) {
  const std::vector<std::string> types = names_per_layer(config, "layer_types", n_layers(model));
  for (std::size_t i = 0; i < types.size(); ++i) {
    Attention* const attention = attention_of(model.layers[i]);
    if (types[i] == "sliding_attention" && attention != nullptr) {
      attention->window_tokens = window;
    } else if (types[i] != "full_attention") {
      throw config.error("layer_types",
                         "\"" + types[i].substr(0, 40) + "\" is no kind of layer here",
                         "full_attention or sliding_attention");
    }
  }
}

double granite_logit_scale(const Reader& config) {
  const double divisor = config.number_or("logits_scaling", 1.0);
  if (!(divisor > 0.0)) {
    throw config.error(
        "logits_scaling", config.shown("logits_scaling") + " is out of range", "above 0");
  }
  return 1.0 / divisor;
}

// ---- Parts beside the decoder ----------------------------------------------------------------

void add_mtp(ModelSpec& model, const LayerSpec& layer, int64_t n, bool own_embeddings) {
  if (n == 0) {
    return;
  }
  const int64_t d = model.hidden_size;
  const int64_t embeddings = own_embeddings ? 2 * model.vocab_size * d : 0;
  const int64_t each = layer_parameters(model, layer) + 2 * d * d + 3 * d + embeddings;
  model.extras.push_back({"mtp", n * each, n});
}

}  // namespace kvfathom::hf
