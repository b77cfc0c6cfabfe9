#include "model/cache/groups.h"

#include <algorithm>

namespace kvfathom::cache {

std::vector<LayerGroup> layer_groups(const ModelSpec& model, CacheScheme requested) {
  std::vector<LayerGroup> groups;
  for (const LayerSpec& layer : model.layers) {
    for (const Scheme& scheme : schemes_of(layer.mixer, requested)) {
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
