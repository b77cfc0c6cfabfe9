// Mixtures of experts over plain attention.
#include <algorithm>
#include <array>
#include <charconv>
#include <string>
#include <system_error>

#include "model/io/hf/towers.h"
#include "model/io/hf/translate.h"

namespace kvfathom::hf {
namespace {

using std::int64_t;

/// One attention everywhere; the first `n_dense` layers dense, the others experts.
void dense_then_experts(const Reader& c,
                        ModelSpec& m,
                        const Attention& a,
                        const MixtureOfExperts& moe,
                        int64_t n_dense) {
  repeat(c, m, layer_of(a, moe));
  for (int64_t i = 0; i < std::min(n_dense, n_layers(m)); ++i) {
    m.layers[static_cast<std::size_t>(i)].feed_forward = read_dense(c);
  }
}

void mixtral(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  MixtureOfExperts moe =
      read_experts(c, {.n_experts = "num_local_experts", .intermediate_size = "intermediate_size"});
  set_routing(moe, kSoftmaxNormalised);
  dense_then_experts(c, m, read_attention(c), moe, 0);
}

/// Qwen's mixtures: every `decoder_sparse_step`-th layer, but for `mlp_only_layers`.
void place_qwen_experts(const Reader& c,
                        ModelSpec& m,
                        const Attention& a,
                        const MixtureOfExperts& moe) {
  repeat(c, m, layer_of(a, moe));
  const int64_t step = c.count_or("decoder_sparse_step", 1, {1, kLayers.max});
  const std::vector<int64_t> dense = c.is_list("mlp_only_layers")
                                         ? c.counts("mlp_only_layers", {0, n_layers(m) - 1})
                                         : std::vector<int64_t>{};
  for (int64_t i = 0; i < n_layers(m); ++i) {
    if ((i + 1) % step != 0 || std::find(dense.begin(), dense.end(), i) != dense.end()) {
      m.layers[static_cast<std::size_t>(i)].feed_forward = read_dense(c);
    }
  }
}

void qwen2_moe(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention a = read_attention(c);
  a.bias = true;  // by the class
  MixtureOfExperts moe =
      read_experts(c, {.shared_intermediate_size = "shared_expert_intermediate_size"});
  moe.shared_expert_gate = true;
  read_routing(c, moe, {}, {.weights_scale = nullptr});
  place_qwen_experts(c, m, a, moe);
}

void qwen3_moe(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention a = read_attention(c);
  a.qk_norm = QkNorm::per_head;
  MixtureOfExperts moe = read_experts(c, {});
  read_routing(c, moe, {}, {.weights_scale = nullptr});
  place_qwen_experts(c, m, a, moe);
  add_qwen_tower(c, m);
}

/// The experts of DeepSeek and of those who took its names over.
MixtureOfExperts deepseek_experts(const Reader& c, const Routing& routing) {
  MixtureOfExperts moe =
      read_experts(c, {.n_experts = "n_routed_experts", .n_shared_experts = "n_shared_experts"});
  read_routing(c, moe, routing);
  moe.router_bias = c.text_or("topk_method", "") == "noaux_tc";
  return moe;
}

void deepseek(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  dense_then_experts(c,
                     m,
                     read_attention(c),
                     deepseek_experts(c, {}),
                     c.count_or("first_k_dense_replace", 0, kMaybeNone));
}

void glm4_moe(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention a = read_attention(c);
  if (c.flag_or("use_qk_norm", false)) {
    a.qk_norm = QkNorm::per_head;
  }
  MixtureOfExperts moe = deepseek_experts(c, kSigmoidNormalised);
  moe.gating = ExpertGating::sigmoid;
  moe.router_bias = true;  // by the class
  dense_then_experts(c, m, a, moe, c.count_or("first_k_dense_replace", 1, kMaybeNone));
  add_mtp(m, m.layers.back(), c.count_or("num_nextn_predict_layers", 0, {0, 16}), true);
}

void ernie4_5_moe(const Reader& c, ModelSpec& m) {
  read_shape(c, m, true);
  Attention a = read_attention(c);
  a.bias = a.output_bias = c.flag_or("use_bias", false);
  MixtureOfExperts moe = read_experts(c,
                                      {.n_experts = "moe_num_experts",
                                       .n_experts_per_token = "moe_k",
                                       .n_shared_experts = "moe_num_shared_experts"});
  set_routing(moe, kSoftmaxNormalised);
  moe.router_bias = true;  // by the class
  repeat(c, m, layer_of(a, moe));
  const int64_t first = c.count_or("moe_layer_start_index", 1, kMaybeNone);
  const int64_t last = c.count_or("moe_layer_end_index", n_layers(m) - 1, kMaybeNone);
  const int64_t interval = c.count_or("moe_layer_interval", 1, {1, kLayers.max});
  for (int64_t i = 0; i < n_layers(m); ++i) {
    if (i < first || i > last || (i + 1) % interval != 0) {
      m.layers[static_cast<std::size_t>(i)].feed_forward = read_dense(c);
    }
  }
}

/// Hunyuan lists the numbers of its experts layer by layer.
void hunyuan_moe(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention a = read_attention(c);
  a.qk_norm = QkNorm::per_head;
  const int64_t n = layer_count(c);
  for (int64_t i = 0; i < n; ++i) {
    MixtureOfExperts moe =
        read_experts(c,
                     {.n_experts_per_token = "moe_topk", .n_shared_experts = "num_shared_expert"},
                     static_cast<std::size_t>(i));
    set_routing(moe, kSoftmaxNormalised);
    m.layers.push_back(layer_of(a, moe));
  }
}

void gpt_oss(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention a = read_attention(c);
  a.bias = a.output_bias = c.flag_or("attention_bias", true);
  a.sinks = true;
  MixtureOfExperts moe =
      read_experts(c, {.n_experts = "num_local_experts", .intermediate_size = "intermediate_size"});
  moe.bias = true;
  moe.gating = ExpertGating::softmax_over_chosen;
  repeat(c, m, layer_of(a, moe));
  apply_layer_types(c, m, c.count("sliding_window", kTokens));
}

/// Llama 4: three of four layers attend within chunks; the fourth sees all and is not rotated.
void llama4(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  const int64_t n = layer_count(c);
  const int64_t step = c.count_or("interleave_moe_layer_step", 1, {1, kLayers.max});
  const int64_t chunk = c.count_or("attention_chunk_size", 8192, kTokens);
  MixtureOfExperts moe =
      read_experts(c, {.n_experts = "num_local_experts", .intermediate_size = "intermediate_size"});
  moe.gating = ExpertGating::sigmoid;  // on the experts' inputs
  moe.n_shared_experts = 1;
  moe.shared_intermediate_size = moe.intermediate_size;
  const DenseFeedForward dense{c.count("intermediate_size_mlp", kWidth)};
  for (int64_t i = 0; i < n; ++i) {
    Attention a = read_attention(c);
    if ((i + 1) % 4 == 0) {
      a.rope_dim = 0;
    } else {
      a.window_tokens = chunk;
      a.window_kind = WindowKind::chunked;
    }
    m.layers.push_back((i + 1) % step == 0 ? layer_of(a, moe) : layer_of(a, dense));
  }
  if (c.is_object("rope_scaling")) {
    m.rotary_factors = RotaryFactors::one;
  }
  m.attention_temperature = true;  // on the layers without positions
  add_llama4_tower(c, m);
}

void minimax_m2(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention a = read_attention(c);
  if (c.flag_or("use_qk_norm", false)) {
    a.qk_norm = QkNorm::all_heads;
  }
  MixtureOfExperts moe =
      read_experts(c, {.n_experts = "num_local_experts", .intermediate_size = "intermediate_size"});
  read_routing(
      c, moe, kSigmoidNormalised, {.normalise_weights = nullptr, .weights_scale = nullptr});
  moe.router_bias = c.flag_or("use_routing_bias", false);
  repeat(c, m, layer_of(a, moe));
}

/// MiniMax-M3: K and V of all tokens are kept, and an index key per token picks blocks of them.
void minimax_m3(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention a = read_attention(c);
  a.qk_norm = QkNorm::per_head;
  MixtureOfExperts moe = read_experts(c,
                                      {.n_experts = "num_local_experts",
                                       .n_shared_experts = "n_shared_experts",
                                       .shared_intermediate_size = "shared_intermediate_size"});
  read_routing(c, moe, kSigmoidNormalised, {.normalise_weights = nullptr});
  moe.router_bias = c.flag_or("use_routing_bias", false);
  const DenseFeedForward dense{c.count("dense_intermediate_size", kWidth)};
  const int64_t n = layer_count(c);
  const std::vector<int64_t> sparse_ff = numbers_per_layer(c, "moe_layer_freq", n, {0, 1});
  const Reader s = c.object("sparse_attention_config");
  const std::vector<int64_t> sparse = numbers_per_layer(s, "sparse_attention_freq", n, {0, 1});
  const Indexer indexer{
      s.count("sparse_num_index_heads", kHeads),
      s.count("sparse_index_dim", kHeadDim),
      s.count("sparse_topk_blocks", {1, 1 << 20}) * s.count("sparse_block_size", {1, 1 << 20})};
  for (std::size_t i = 0; i < sparse_ff.size(); ++i) {
    a.indexer = sparse[i] != 0 ? std::optional(indexer) : std::nullopt;
    m.layers.push_back(sparse_ff[i] != 0 ? layer_of(a, moe) : layer_of(a, dense));
  }
}

/// MiMo-V2: windowed layers (1 in the pattern) have heads, widths and sinks of their own.
void mimo_v2(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention full = read_attention(c);
  full.v_head_dim = c.count_or("v_head_dim", full.head_dim, kHeadDim);
  full.sinks = c.flag_or("add_full_attention_sink_bias", false);
  Attention local = full;
  local.n_heads = c.count_or("swa_num_attention_heads", full.n_heads, kHeads);
  local.n_kv_heads = c.count_or("swa_num_key_value_heads", full.n_kv_heads, {1, local.n_heads});
  local.head_dim = c.count_or("swa_head_dim", full.head_dim, kHeadDim);
  local.v_head_dim = c.count_or("swa_v_head_dim", full.v_head_dim, kHeadDim);
  local.rope_dim = rope_dim_of(c, local.head_dim);
  local.sinks = c.flag_or("add_swa_attention_sink_bias", false);
  local.window_tokens = c.count("sliding_window", kTokens);
  const MixtureOfExperts moe = deepseek_experts(c, kSigmoidNormalised);
  const int64_t n = layer_count(c);
  const std::vector<int64_t> windows = numbers_per_layer(c, "hybrid_layer_pattern", n, {0, 1});
  const std::vector<int64_t> experts = numbers_per_layer(c, "moe_layer_freq", n, {0, 1});
  for (std::size_t i = 0; i < windows.size(); ++i) {
    m.layers.push_back(layer_of(windows[i] != 0 ? local : full,
                                experts[i] != 0 ? FeedForward(moe) : FeedForward(read_dense(c))));
  }
}

/// Which layers have experts: Step lists them as text, "3,4,5"; a trimmed copy counts the dense
/// layers before them.
std::vector<bool> step3_expert_layers(const Reader& c, int64_t n) {
  std::vector<bool> experts(static_cast<std::size_t>(n), false);
  if (!c.has("moe_layers_enum")) {
    const int64_t n_dense = c.count_or("first_k_dense_replace", 3, {0, n});
    std::fill(experts.begin() + n_dense, experts.end(), true);
    return experts;
  }
  const std::string text = c.text("moe_layers_enum");
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at != end;) {
    std::size_t layer = 0;
    const auto [stop, status] = std::from_chars(at, end, layer);
    if (status != std::errc{} || layer >= experts.size() || (stop != end && *stop != ',')) {
      throw c.error("moe_layers_enum",
                    c.shown("moe_layers_enum") + " is not understood",
                    "layers from 0 to " + std::to_string(n - 1) + ", separated by commas");
    }
    experts[layer] = true;
    at = stop == end ? end : stop + 1;
  }
  return experts;
}

/// Step-3.5 and 3.7: KV heads are "groups"; windowed layers have more query heads; each head has
/// a gate. Where a copy lacks `attention_other_setting`, Step-3.5's stands in.
void step3(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  Attention full;
  full.n_heads = c.count("num_attention_heads", kHeads);
  full.n_kv_heads = c.count_of({"num_attention_groups", "num_key_value_heads"}, {1, full.n_heads});
  full.head_dim = full.v_head_dim = full.rope_dim = c.count("head_dim", kHeadDim);
  full.qk_norm = QkNorm::per_head;
  full.gate_width = full.n_heads;
  Attention local = full;
  local.n_heads = 96;
  if (c.is_object("attention_other_setting")) {
    const Reader other = c.object("attention_other_setting");
    local.n_heads = other.count("num_attention_heads", kHeads);
    local.n_kv_heads = other.count("num_attention_groups", {1, local.n_heads});
    local.head_dim = local.v_head_dim = local.rope_dim = other.count("head_dim", kHeadDim);
  }
  local.gate_width = local.n_heads;
  const int64_t window = c.count("sliding_window", kTokens);
  local.window_tokens = window;
  MixtureOfExperts moe =
      read_experts(c,
                   {.n_experts = c.has("moe_num_experts") ? "moe_num_experts" : "num_experts",
                    .n_experts_per_token = c.has("moe_top_k") ? "moe_top_k" : "num_experts_per_tok",
                    .shared_intermediate_size = "share_expert_dim"});
  read_routing(
      c,
      moe,
      kSigmoidNormalised,
      {.normalise_weights = "norm_expert_weight", .weights_scale = "moe_router_scaling_factor"});
  moe.router_bias = c.flag_or("use_moe_router_bias", false);
  const int64_t n = layer_count(c);
  const std::vector<bool> has_experts = step3_expert_layers(c, n);
  const std::vector<std::string> types = names_per_layer(c, "layer_types", n);
  for (std::size_t i = 0; i < types.size(); ++i) {
    const FeedForward ff = has_experts[i] ? FeedForward(moe) : FeedForward(read_dense(c));
    m.layers.push_back(layer_of(types[i] == "full_attention" ? full : local, ff));
  }
  add_mtp(m, m.layers.back(), c.count_or("num_nextn_predict_layers", 0, {0, 16}), false);
}

/// Laguna: query heads differ layer by layer, and each has a gate.
void laguna(const Reader& c, ModelSpec& m) {
  read_shape(c, m, false);
  const int64_t n = layer_count(c);
  const std::vector<int64_t> heads =
      numbers_per_layer(c, "num_attention_heads_per_layer", n, kHeads);
  const std::vector<std::string> types = names_per_layer(c, "layer_types", n);
  const std::vector<std::string> feed_forwards = names_per_layer(c, "mlp_layer_types", n);
  MixtureOfExperts moe =
      read_experts(c, {.shared_intermediate_size = "shared_expert_intermediate_size"});
  read_routing(c,
               moe,
               kSigmoidNormalised,
               {.normalise_weights = nullptr, .weights_scale = "moe_routed_scaling_factor"});
  moe.router_bias = true;  // by the class
  for (std::size_t i = 0; i < heads.size(); ++i) {
    Attention a = read_attention(c);
    a.n_heads = heads[i];
    a.gate_width = heads[i];
    a.qk_norm = QkNorm::per_head;
    if (a.n_heads % a.n_kv_heads != 0) {
      throw c.error("num_attention_heads_per_layer",
                    std::to_string(a.n_heads) + " heads on layer " + std::to_string(i),
                    "a multiple of num_key_value_heads");
    }
    m.layers.push_back(
        layer_of(a, feed_forwards[i] == "dense" ? FeedForward(read_dense(c)) : FeedForward(moe)));
  }
  apply_layer_types(c, m, c.count("sliding_window", kTokens));
}

constexpr std::array kTable{
    Family{"mixtral", "llama", mixtral},
    Family{"qwen2_moe", "qwen2moe", qwen2_moe},
    Family{"qwen3_moe", "qwen3moe", qwen3_moe},
    Family{"qwen3_vl_moe", "qwen3vlmoe", qwen3_moe},
    Family{"qwen3_vl_moe_text", "qwen3vlmoe", qwen3_moe},
    Family{"deepseek", "deepseek", deepseek},
    Family{"glm4_moe", "glm4moe", glm4_moe},
    Family{"ernie4_5_moe", "ernie4_5-moe", ernie4_5_moe},
    Family{"hunyuan_v1_moe", "hunyuan-moe", hunyuan_moe},
    Family{"gpt_oss", "gpt-oss", gpt_oss},
    Family{"llama4", "llama4", llama4},
    Family{"llama4_text", "llama4", llama4},
    Family{"minimax_m2", "minimax-m2", minimax_m2},
    Family{"minimax_m3", "minimax-m3", minimax_m3},
    Family{"mimo_v2_flash", "mimo2", mimo_v2},
    Family{"step3p5", "step35", step3},
    Family{"step3p7", "step35", step3},
    Family{"laguna", "laguna", laguna},
};

}  // namespace

std::span<const Family> moe_families() {
  return kTable;
}

}  // namespace kvfathom::hf
