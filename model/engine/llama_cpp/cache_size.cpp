#include "model/engine/llama_cpp/cache_size.h"

#include <algorithm>
#include <string>

#include "model/cache/groups.h"
#include "model/error.h"
#include "model/rounding.h"

namespace kvfathom::llama_cpp {
namespace {

constexpr std::int64_t kStateElementBytes = 4;  // llama.cpp keeps R and S in f32

/// Bytes of a row, which ggml allows only in whole blocks.
std::int64_t cache_row_bytes(DType type, std::int64_t n_elements, const char* option) {
  const DTypeInfo& t = info(type);
  if (n_elements % t.block_elements != 0) {
    throw InputError(option,
                     std::string(t.name) + " holds blocks of " + std::to_string(t.block_elements) +
                         " elements, and a row of this model has " + std::to_string(n_elements),
                     "use f16, bf16 or f32");
  }
  return row_bytes(type, n_elements);
}

std::int64_t row_tail_bytes(DType type, std::int64_t n_elements, const TensorPadding& padding) {
  const std::int64_t rest = n_elements % padding.row_elements;
  const bool quantised = info(type).block_elements > 1;
  return quantised && rest != 0 ? row_bytes(type, padding.row_elements - rest) : 0;
}

ModelSpec only(const ModelSpec& view, const std::vector<bool>& kept) {
  ModelSpec part;
  part.name = view.name;
  for (std::size_t i = 0; i < view.layers.size(); ++i) {
    if (kept[i]) {
      part.layers.push_back(view.layers[i]);
    }
  }
  return part;
}

std::int64_t widest_v_row(const std::vector<cache::LayerGroup>& groups) {
  std::int64_t widest = 0;
  for (const cache::LayerGroup& group : groups) {
    widest = std::max(widest, group.layout.v_row_elements);
  }
  return widest;
}

}  // namespace

CacheSizer::CacheSizer(const ModelSpec& view,
                       CacheScheme latent_scheme,
                       DType type_k,
                       DType type_v,
                       bool v_transposed,
                       TensorPadding padding,
                       const std::vector<bool>& kept)
    : padding_(padding) {
  auto layer_groups = cache::layer_groups(view, latent_scheme);
  const std::int64_t widest_v = widest_v_row(layer_groups);
  if (!kept.empty()) {
    layer_groups = cache::layer_groups(only(view, kept), latent_scheme);
  }
  for (const cache::LayerGroup& layers : layer_groups) {
    const cache::CacheLayout& layout = layers.layout;
    const std::int64_t k_row = layout.k_row_elements;
    const bool pads_v = layout.v_row_elements > 0 && v_transposed;
    const std::int64_t v_row = pads_v ? widest_v : layout.v_row_elements;
    groups_.push_back({.scheme = cache::name(layers.scheme),
                       .n_layers = layers.n_layers,
                       .k_row_bytes = cache_row_bytes(type_k, k_row, "--cache-type-k"),
                       .v_row_bytes = cache_row_bytes(type_v, v_row, "--cache-type-v"),
                       .k_tail_bytes = row_tail_bytes(type_k, k_row, padding),
                       .v_tail_bytes = row_tail_bytes(type_v, v_row, padding),
                       .window = layout.token_cap.has_value(),
                       .conv_bytes = layout.conv_elements * kStateElementBytes,
                       .state_bytes = layout.state_elements * kStateElementBytes});
    if (layout.token_cap) {
      if (window_tokens_ != 0 && window_tokens_ != *layout.token_cap) {
        throw Unsupported(view.name,
                          "windows of " + std::to_string(window_tokens_) + " and " +
                              std::to_string(*layout.token_cap) + " tokens",
                          "llama.cpp keeps one window size per model");
      }
      window_tokens_ = *layout.token_cap;
    }
  }
}

std::int64_t CacheSizer::tensor_bytes(std::int64_t data_bytes, std::int64_t tail_bytes) const {
  return data_bytes == 0 ? 0 : round_up(data_bytes + tail_bytes, padding_.alignment_bytes);
}

CacheGroup CacheSizer::sized(const Group& group,
                             const Cells& cells,
                             const CellSettings& settings) const {
  CacheGroup out{.scheme = group.scheme, .n_layers = group.n_layers, .streams = cells.streams};
  if (group.k_row_bytes + group.v_row_bytes > 0) {
    out.cells = group.window ? window_cells(cells, settings, window_tokens_) : cells.n_ctx_seq;
    const std::int64_t rows = out.cells * cells.streams;
    out.k_bytes = group.n_layers * tensor_bytes(group.k_row_bytes * rows, group.k_tail_bytes);
    out.v_bytes = group.n_layers * tensor_bytes(group.v_row_bytes * rows, group.v_tail_bytes);
  } else {
    out.streams = settings.sequences;
    out.state_bytes = group.n_layers * (tensor_bytes(group.conv_bytes * settings.sequences, 0) +
                                        tensor_bytes(group.state_bytes * settings.sequences, 0));
  }
  return out;
}

CacheReport CacheSizer::report(const Cells& cells, const CellSettings& settings) const {
  CacheReport report;
  report.groups.reserve(groups_.size());
  for (const Group& group : groups_) {
    const CacheGroup sizes = sized(group, cells, settings);
    report.k_bytes += sizes.k_bytes;
    report.v_bytes += sizes.v_bytes;
    report.state_bytes += sizes.state_bytes;
    const bool grows = sizes.cells == cells.n_ctx_seq;
    const std::int64_t per_token = group.n_layers * (group.k_row_bytes + group.v_row_bytes);
    report.bytes_per_token += grows ? per_token : 0;
    report.fixed_bytes_per_sequence +=
        group.n_layers * (group.conv_bytes + group.state_bytes) +
        (grows ? 0 : (sizes.k_bytes + sizes.v_bytes) / settings.sequences);
    report.groups.push_back(sizes);
  }
  return report;
}

std::int64_t CacheSizer::bytes(const Cells& cells, const CellSettings& settings) const {
  std::int64_t sum = 0;
  for (const Group& group : groups_) {
    const CacheGroup sizes = sized(group, cells, settings);
    sum += sizes.k_bytes + sizes.v_bytes + sizes.state_bytes;
  }
  return sum;
}

}  // namespace kvfathom::llama_cpp
