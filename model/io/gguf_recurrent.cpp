// Layers of GGUF models that keep a state instead of a cache.
#include <string>

#include "model/error.h"
#include "model/io/gguf_layers.h"

namespace kvfathom {
namespace {

constexpr GgufRange kConv{.min = 1, .max = 1 << 10};
constexpr GgufRange kState{.min = 1, .max = 1 << 14};
constexpr GgufRange kCount{.min = 1, .max = 1 << 14};

/// The convolution has one column of d_conv taps for each channel that passes through it.
void check_conv(const GgufSource& source,
                std::int64_t layer,
                std::string_view name,
                std::int64_t d_conv,
                std::int64_t channels) {
  const GgufTensor& conv = source.tensors.required(layer, name);
  if (conv.shape[0] != d_conv || n_elements(conv) != d_conv * channels) {
    source.tensors.refuse(conv,
                          "shape " + shape_text(conv),
                          "{" + std::to_string(d_conv) + ", " + std::to_string(channels) +
                              "} by the keys of the state");
  }
}

Mamba mamba(const GgufSource& source, std::int64_t layer) {
  const GgufKeys& keys = source.keys;
  const Mamba m{
      .d_inner = keys.required("ssm.inner_size", kWidth),
      .d_state = keys.required("ssm.state_size", kState),
      .d_conv = keys.required("ssm.conv_kernel", kConv),
      .dt_rank = keys.required("ssm.time_step_rank", kWidth),
      .dt_b_c_norm = source.tensors.has(layer, "ssm_dt_norm.weight") ||
                     keys.boolean("ssm.dt_b_c_rms").value_or(false),
  };
  check_conv(source, layer, "ssm_conv1d.weight", m.d_conv, m.d_inner);
  source.tensors.require_shape(source.tensors.required(layer, "ssm_a"),
                               m.d_state,
                               m.d_inner,
                               "ssm.state_size and inner_size");
  return m;
}

Mamba2 mamba2(const GgufSource& source, std::int64_t layer) {
  const GgufKeys& keys = source.keys;
  const Mamba2 m{
      .d_inner = keys.required("ssm.inner_size", kWidth),
      .d_state = keys.required("ssm.state_size", kState),
      .d_conv = keys.required("ssm.conv_kernel", kConv),
      .n_heads = keys.required("ssm.time_step_rank", kCount),
      .n_groups = keys.required("ssm.group_count", kCount),
      .conv_bias = source.tensors.has(layer, "ssm_conv1d.bias"),
      .norm = source.tensors.has(layer, "ssm_norm.weight"),
  };
  check_conv(source, layer, "ssm_conv1d.weight", m.d_conv, m.d_inner + 2 * m.n_groups * m.d_state);
  return m;
}

GatedDeltaNet gated_delta_net(const GgufSource& source, std::int64_t layer) {
  const GgufKeys& keys = source.keys;
  const std::int64_t head_dim = keys.required("ssm.state_size", kState);
  const GatedDeltaNet g{
      .n_k_heads = keys.required("ssm.group_count", kCount),
      .n_v_heads = keys.required("ssm.time_step_rank", kCount),
      .k_head_dim = head_dim,
      .v_head_dim = head_dim,
      .d_conv = keys.required("ssm.conv_kernel", kConv),
  };
  const std::int64_t inner = keys.required("ssm.inner_size", kWidth);
  if (inner != g.n_v_heads * head_dim) {
    throw InputError(keys.where("ssm.inner_size"),
                     std::to_string(inner),
                     std::to_string(g.n_v_heads * head_dim) + ", time_step_rank * state_size");
  }
  check_conv(source,
             layer,
             "ssm_conv1d.weight",
             g.d_conv,
             2 * g.n_k_heads * head_dim + g.n_v_heads * head_dim);
  return g;
}

KimiDeltaAttention kda(const GgufSource& source, const GgufHeads& heads, std::int64_t layer) {
  const KimiDeltaAttention k{
      .n_heads = heads.n_heads[static_cast<std::size_t>(layer)],
      .head_dim = source.keys.required("kda.head_dim", kHeadDim),
      .d_conv = source.keys.required("ssm.conv_kernel", kConv),
  };
  check_conv(source, layer, "ssm_conv1d_q.weight", k.d_conv, k.n_heads * k.head_dim);
  return k;
}

ShortConv short_conv(const GgufSource& source, std::int64_t layer) {
  const ShortConv s{
      .channels = source.hidden_size,
      .d_conv = source.keys.required("shortconv.l_cache", kConv),
      .bias = source.tensors.has(layer, "shortconv.in_proj.bias"),
  };
  check_conv(source, layer, "shortconv.conv.weight", s.d_conv, s.channels);
  return s;
}

}  // namespace

std::vector<bool> gguf_recurrent_layers(const GgufSource& source, const GgufHeads& heads) {
  const auto n = static_cast<std::size_t>(source.n_layers);
  std::vector<bool> layers(n, source.architecture.recurrent != GgufRecurrent::none);
  if (source.architecture.recurrent == GgufRecurrent::none) {
    return layers;
  }
  const auto flagged = source.keys.per_layer(
      "attention.recurrent_layers", {.min = 0, .max = 1}, source.n_layers, source.n_stored);
  const auto interval =
      source.keys.integer("full_attention_interval", {.min = 1, .max = kLayerCount.max})
          .value_or(4);
  const auto ff =
      source.keys.per_layer("feed_forward_length", kWidthOrNone, source.n_layers, source.n_stored);
  for (std::size_t i = 0; i < n; ++i) {
    switch (source.architecture.recurrent_layers) {
      case GgufRecurrentLayers::all:
      case GgufRecurrentLayers::beside_attention:
        break;
      case GgufRecurrentLayers::without_kv_heads:
        layers[i] = heads.n_kv_heads[i] == 0;
        break;
      case GgufRecurrentLayers::without_kv_heads_and_ff:
        layers[i] = heads.n_kv_heads[i] == 0 && (!ff || (*ff)[i] == 0);
        break;
      case GgufRecurrentLayers::all_but_every_nth:
        layers[i] =
            flagged ? (*flagged)[i] != 0 : (static_cast<std::int64_t>(i) + 1) % interval != 0;
        break;
    }
  }
  return layers;
}

Mixer gguf_recurrent(const GgufSource& source, const GgufHeads& heads, std::int64_t layer) {
  switch (source.architecture.recurrent) {
    case GgufRecurrent::mamba:
      return mamba(source, layer);
    case GgufRecurrent::mamba2:
      return mamba2(source, layer);
    case GgufRecurrent::gated_delta_net:
      return gated_delta_net(source, layer);
    case GgufRecurrent::kda:
      return kda(source, heads, layer);
    case GgufRecurrent::short_conv:
      return short_conv(source, layer);
    case GgufRecurrent::none:
      break;
  }
  return NoMixer{};
}

}  // namespace kvfathom
