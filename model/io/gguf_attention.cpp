// Attention layers of GGUF models: head counts, windows, rotation, plain and latent attention.
#include <algorithm>

#include "model/error.h"
#include "model/io/gguf_layers.h"

namespace kvfathom {
namespace {

using Index = std::size_t;

constexpr std::string_view kWindowKey = "attention.sliding_window";
constexpr std::string_view kPatternKey = "attention.sliding_window_pattern";

std::int64_t window_tokens(const GgufSource& source) {
  const GgufWindows& rule = source.architecture.windows;
  const auto in_file = rule.required
                           ? source.keys.required(kWindowKey, kTokens)
                           : source.keys.integer(kWindowKey, kTokens).value_or(rule.default_tokens);
  return in_file > 0 && rule.fixed_tokens > 0 ? rule.fixed_tokens : in_file;
}

std::vector<bool> windowed_layers(const GgufSource& source) {
  const GgufWindows& rule = source.architecture.windows;
  const auto n = static_cast<Index>(source.n_layers);
  const bool in_file = source.keys.has(kPatternKey);
  if (source.keys.is_array(kPatternKey) || rule.layers == GgufWindowLayers::by_array) {
    const auto flags =
        source.keys.per_layer(kPatternKey, {.min = 0, .max = 1}, source.n_layers, source.n_stored);
    if (!flags) {
      throw InputError(source.keys.where(kPatternKey), "is missing", "one flag per layer");
    }
    std::vector<bool> layers;
    std::ranges::transform(*flags, std::back_inserter(layers), [](auto f) { return f != 0; });
    return layers;
  }
  std::int64_t period = rule.period;
  if (in_file && rule.layers != GgufWindowLayers::all) {
    period = source.keys.required(kPatternKey, {.min = 0, .max = kLayerCount.max});
  }
  std::vector<bool> layers(n, true);
  for (Index i = 0; i < n && period > 0; ++i) {
    const auto place = static_cast<std::int64_t>(i) % period;
    if (rule.layers == GgufWindowLayers::all_but_last_of_n) {
      layers[i] = place != period - 1;
    } else if (rule.layers == GgufWindowLayers::all_but_first_of_n) {
      layers[i] = place != 0;
    }
  }
  return layers;
}

bool rotates(const GgufSource& source, const GgufAttentionPlan& plan, Index layer) {
  const bool windows = plan.window_tokens > 0;
  switch (source.architecture.rope) {
    case GgufRope::all:
      return true;
    case GgufRope::none:
      return false;
    case GgufRope::windowed_only:
      return !windows || plan.has_window[layer];
    case GgufRope::not_every_fourth:
      return (source.architecture.windows.chunked && !windows) || (layer + 1) % 4 != 0;
    case GgufRope::not_first_of_four:
      return !windows || layer % 4 != 0;
    case GgufRope::unless_switched_off:
      return source.keys.boolean("rope.scaling.finetuned").value_or(true);
  }
  return true;
}

std::int64_t first_shared_layer(const GgufSource& source) {
  switch (source.architecture.shared_kv) {
    case GgufSharedKv::from_layer_20:
      return std::min<std::int64_t>(20, source.n_layers);
    case GgufSharedKv::last_n_by_key: {
      // The layers that own K and V come first; one of each kind must be among them.
      const auto shared =
          source.keys.integer("attention.shared_kv_layers",
                              {.min = 0, .max = std::max<std::int64_t>(source.n_layers - 2, 0)});
      return source.n_layers - shared.value_or(0);
    }
    case GgufSharedKv::none:
      break;
  }
  return source.n_layers;
}

/// GLM-5.2 computes its index in every fourth layer (and the first two) and reuses it between;
/// earlier ones, told apart by their context length, in every layer (llama.cpp, glm-dsa.cpp).
std::vector<bool> indexing_layers(const GgufSource& source) {
  const auto n = static_cast<Index>(source.n_layers);
  constexpr std::string_view kTypesKey = "attention.indexer.types";
  const auto types =
      source.keys.per_layer(kTypesKey, {.min = 0, .max = 1}, source.n_layers, source.n_stored);
  const bool reuses = source.architecture.name == "glm-dsa" &&
                      source.keys.required("context_length", kTokens) >= 1'048'576;
  std::vector<bool> layers(n, true);
  for (Index i = 0; i < n; ++i) {
    if (types) {
      layers[i] = (*types)[i] != 0;
    } else if (reuses) {
      layers[i] = i < 2 || (i - 2) % 4 == 0;
    }
  }
  return layers;
}

QkNorm qk_norm(const GgufSource& source, const Attention& a, std::int64_t layer) {
  const GgufTensor* norm = source.tensors.find(layer, "attn_q_norm.weight");
  if (norm == nullptr) {
    return QkNorm::none;
  }
  const std::array<std::int64_t, 4>& shape = norm->shape;
  if (shape == std::array<std::int64_t, 4>{a.head_dim, 1, 1, 1}) {
    return QkNorm::per_head;
  }
  if (shape == std::array<std::int64_t, 4>{a.n_heads * a.head_dim, 1, 1, 1}) {
    return QkNorm::all_heads;
  }
  source.tensors.require_shape(*norm, a.head_dim, a.n_heads, "attention.key_length and head_count");
  return QkNorm::each_head;
}

/// Checks the projections against the keys and reads from them what the keys do not say.
void read_projections(const GgufSource& source, std::int64_t layer, bool owns_kv, Attention& a) {
  constexpr std::string_view kBy = "head counts, key_length and value_length";
  const GgufTensors& tensors = source.tensors;
  const std::int64_t q = a.n_heads * a.head_dim;
  const std::int64_t k = a.n_kv_heads * a.head_dim;
  const std::int64_t v = a.n_kv_heads * a.v_head_dim;
  if (const GgufTensor* fused = tensors.find(layer, "attn_qkv.weight")) {
    tensors.require_shape(*fused, source.hidden_size, q + k + v, kBy);
    a.bias = tensors.has(layer, "attn_qkv.bias");
  } else {
    const GgufTensor& wq = tensors.required(layer, "attn_q.weight");
    a.output_gate =
        source.architecture.recurrent == GgufRecurrent::gated_delta_net && wq.shape[1] == 2 * q;
    tensors.require_shape(wq, source.hidden_size, a.output_gate ? 2 * q : q, kBy);
    if (owns_kv) {
      tensors.require_shape(tensors.required(layer, "attn_k.weight"), source.hidden_size, k, kBy);
      const GgufTensor* wv = tensors.find(layer, "attn_v.weight");
      a.v_is_k = wv == nullptr && source.architecture.name == "gemma4";
      if (!a.v_is_k) {
        tensors.require_shape(tensors.required(layer, "attn_v.weight"), source.hidden_size, v, kBy);
      }
    }
    a.bias = tensors.has(layer, "attn_q.bias") || tensors.has(layer, "attn_k.bias");
  }
  a.output_bias = tensors.has(layer, "attn_output.bias");
  a.sinks = tensors.has(layer, "attn_sinks.weight");
  a.qk_norm = qk_norm(source, a, layer);
}

Attention plain_attention(const GgufSource& source,
                          const GgufHeads& heads,
                          const GgufAttentionPlan& plan,
                          std::int64_t layer) {
  const auto i = static_cast<Index>(layer);
  const bool windowed = plan.window_tokens > 0 && plan.has_window[i];
  const GgufAttentionPlan::Dims& dims = windowed ? plan.windowed : plan.full;
  Attention a;
  a.n_heads = heads.n_heads[i];
  a.n_kv_heads = heads.n_kv_heads[i];
  a.head_dim = dims.head;
  a.v_head_dim = dims.v_head;
  a.rope_dim = plan.rotates[i] ? dims.rope : 0;
  if (windowed) {
    a.window_tokens = plan.window_tokens;
    a.window_kind = source.architecture.windows.chunked ? WindowKind::chunked : WindowKind::sliding;
  }
  if (a.n_heads < a.n_kv_heads || a.n_heads % a.n_kv_heads != 0) {
    throw InputError(source.keys.where("attention.head_count_kv"),
                     std::to_string(a.n_kv_heads) + " in layer " + std::to_string(layer),
                     "a divisor of the layer's head_count, " + std::to_string(a.n_heads));
  }
  return a;
}

/// Latent attention whose up-projection is stored whole: what engines cache is K and V of every
/// head, as if it were plain.
Attention expanded_attention(const GgufSource& source, const Attention& plain, std::int64_t layer) {
  const std::int64_t rank = source.keys.required("attention.kv_lora_rank", kWidth);
  const std::int64_t nope = plain.head_dim - plain.rope_dim;
  source.tensors.require_shape(source.tensors.required(layer, "attn_kv_b.weight"),
                               rank,
                               plain.n_heads * (nope + plain.v_head_dim),
                               "kv_lora_rank, head_count, key_length and value_length");
  Attention a = plain;
  a.kv_lora_rank = rank;
  if (const GgufTensor* down = source.tensors.find(layer, "attn_q_a.weight")) {
    a.q_lora_rank = down->shape[1];
  }
  return a;
}

LatentAttention latent_attention(const GgufSource& source,
                                 const GgufHeads& heads,
                                 const GgufAttentionPlan& plan,
                                 std::int64_t layer) {
  const GgufKeys& keys = source.keys;
  const GgufTensors& tensors = source.tensors;
  const auto i = static_cast<Index>(layer);
  LatentAttention a;
  a.n_heads = heads.n_heads[i];
  a.kv_lora_rank = keys.required("attention.kv_lora_rank", kWidth);
  a.qk_rope_head_dim = keys.required("rope.dimension_count", kHeadDim);
  a.qk_nope_head_dim = keys.required("attention.key_length_mla",
                                     {.min = a.qk_rope_head_dim + 1, .max = kHeadDim.max}) -
                       a.qk_rope_head_dim;
  a.v_head_dim = keys.required("attention.value_length_mla", kHeadDim);
  if (const GgufTensor* down = tensors.find(layer, "attn_q_a.weight")) {
    a.q_lora_rank = down->shape[1];
  }
  constexpr std::string_view kBy = "head_count, key_length_mla and the rank";
  const std::int64_t q = a.n_heads * (a.qk_nope_head_dim + a.qk_rope_head_dim);
  if (a.q_lora_rank > 0) {
    tensors.require_shape(tensors.required(layer, "attn_q_b.weight"), a.q_lora_rank, q, kBy);
  } else {
    tensors.require_shape(tensors.required(layer, "attn_q.weight"), source.hidden_size, q, kBy);
  }
  tensors.require_shape(tensors.required(layer, "attn_kv_a_mqa.weight"),
                        source.hidden_size,
                        a.kv_lora_rank + a.qk_rope_head_dim,
                        "kv_lora_rank and the rope dimensions");
  static_cast<void>(tensors.required(layer, "attn_k_b.weight"));
  static_cast<void>(tensors.required(layer, "attn_v_b.weight"));
  if (plan.indexer && plan.has_indexer[i]) {
    a.indexer = plan.indexer;
    tensors.require_shape(tensors.required(layer, "indexer.attn_k.weight"),
                          source.hidden_size,
                          a.indexer->head_dim,
                          "attention.indexer.key_length");
  }
  return a;
}

}  // namespace

GgufHeads gguf_heads(const GgufSource& source) {
  GgufHeads heads;
  const auto read = [&](std::string_view key) {
    return source.keys.per_layer(key, kHeadCount, source.n_layers, source.n_stored);
  };
  const auto n_heads = read("attention.head_count");
  const bool attends = source.architecture.recurrent == GgufRecurrent::none ||
                       source.architecture.recurrent_layers != GgufRecurrentLayers::all;
  if (!n_heads && attends) {
    throw InputError(
        source.keys.where("attention.head_count"), "is missing", "the number of attention heads");
  }
  heads.n_heads = n_heads.value_or(std::vector<std::int64_t>(static_cast<Index>(source.n_layers)));
  heads.n_kv_heads = read("attention.head_count_kv").value_or(heads.n_heads);
  return heads;
}

GgufAttentionPlan gguf_attention_plan(const GgufSource& source, const GgufHeads& heads) {
  const GgufKeys& keys = source.keys;
  GgufAttentionPlan plan;
  plan.has_window.assign(static_cast<Index>(source.n_layers), false);
  plan.has_indexer.assign(static_cast<Index>(source.n_layers), false);
  plan.first_shared = source.n_layers;
  const auto first = std::ranges::find_if(heads.n_heads, [](auto n) { return n > 0; });
  if (first == heads.n_heads.end()) {
    plan.rotates.assign(static_cast<Index>(source.n_layers), false);
    return plan;  // nothing attends
  }
  const std::int64_t per_head = source.hidden_size / *first;
  plan.full.head = keys.integer("attention.key_length", kHeadDim).value_or(per_head);
  plan.full.v_head = keys.integer("attention.value_length", kHeadDim).value_or(per_head);
  plan.full.rope = keys.integer("rope.dimension_count", {.min = 0, .max = plan.full.head})
                       .value_or(plan.full.head);
  plan.windowed.head = keys.integer("attention.key_length_swa", kHeadDim).value_or(plan.full.head);
  plan.windowed.v_head =
      keys.integer("attention.value_length_swa", kHeadDim).value_or(plan.full.v_head);
  plan.windowed.rope =
      keys.integer("rope.dimension_count_swa", {.min = 0, .max = plan.windowed.head})
          .value_or(std::min(plan.full.rope, plan.windowed.head));
  plan.window_tokens = window_tokens(source);
  if (plan.window_tokens > 0) {
    plan.has_window = windowed_layers(source);
  }
  for (Index i = 0; i < static_cast<Index>(source.n_layers); ++i) {
    plan.rotates.push_back(rotates(source, plan, i));
  }
  plan.first_shared = first_shared_layer(source);
  if (source.architecture.indexer) {
    plan.has_indexer = indexing_layers(source);
    plan.indexer = Indexer{.n_heads = keys.required("attention.indexer.head_count", kHeadDim),
                           .head_dim = keys.required("attention.indexer.key_length", kHeadDim),
                           .top_k = keys.required("attention.indexer.top_k", kWidth)};
  }
  return plan;
}

Mixer gguf_attention(const GgufSource& source,
                     const GgufHeads& heads,
                     const GgufAttentionPlan& plan,
                     std::int64_t layer) {
  const auto i = static_cast<Index>(layer);
  if (heads.n_kv_heads[i] == 0) {
    return NoMixer{};
  }
  const bool latent = source.architecture.attention == GgufAttention::latent;
  // Architectures younger than the key have no other layout.
  if (latent && (source.keys.has("attention.key_length_mla") || source.architecture.indexer ||
                 source.architecture.recurrent == GgufRecurrent::kda)) {
    return latent_attention(source, heads, plan, layer);
  }
  Attention a = plain_attention(source, heads, plan, layer);
  if (latent) {
    return expanded_attention(source, a, layer);
  }
  const bool shared = layer >= plan.first_shared;
  read_projections(source, layer, !shared, a);
  if (!shared) {
    return a;
  }
  // llama.cpp: the last owning layer is full, the one before it has a window.
  return SharedAttention{.with_layer = plan.first_shared - (a.window_tokens ? 2 : 1),
                         .attention = a};
}

}  // namespace kvfathom
