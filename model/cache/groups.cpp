#include "model/cache/groups.h"

#include <algorithm>
#include <variant>

namespace kvfathom::cache {

std::vector<std::vector<Scheme>> layer_schemes(const ModelSpec& model,
                                               const SchemeRequest& requested) {
  const auto keeps_kv = [](const LayerSpec& layer) {
    return std::holds_alternative<Attention>(layer.mixer) ||
           std::holds_alternative<LatentAttention>(layer.mixer) ||
           std::holds_alternative<ParallelMixers>(layer.mixer);
  };
  LayerPlace place{.hidden_size = model.hidden_size,
                   .count = std::ranges::count_if(model.layers, keeps_kv)};
  std::vector<std::vector<Scheme>> schemes;
  schemes.reserve(model.layers.size());
  for (const LayerSpec& layer : model.layers) {
    schemes.push_back(schemes_of(layer.mixer, requested, place));
    place.index += keeps_kv(layer) ? 1 : 0;
  }
  return schemes;
}

std::vector<LayerGroup> layer_groups(const ModelSpec& model, const SchemeRequest& requested) {
  return layer_groups(layer_schemes(model, requested));
}

std::vector<LayerGroup> layer_groups(std::span<const std::vector<Scheme>> layers) {
  std::vector<LayerGroup> groups;
  for (const std::vector<Scheme>& layer : layers) {
    for (const Scheme& scheme : layer) {
      const CacheLayout cache = layout(scheme);
      if (cache.shares_with_layer) {
        continue;
      }
      const auto same = std::ranges::find(groups, scheme, &LayerGroup::scheme);
      if (same != groups.end()) {
        ++same->n_layers;
      } else {
        groups.push_back({scheme, cache, 1});
      }
    }
  }
  return groups;
}

}  // namespace kvfathom::cache
