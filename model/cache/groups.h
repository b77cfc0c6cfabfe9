// Layers with equal caches counted once: what makes pricing an 80-layer model cheap.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/cache/scheme.h"

namespace kvfathom::cache {

/// All layers of a model that hold the same scheme with the same numbers.
struct LayerGroup {
  Scheme scheme;
  CacheLayout layout;
  std::int64_t n_layers = 0;
};

/// The model's caches under `requested`, in order of first appearance; layers that own nothing
/// (cross-layer, no mixer) are left out.
[[nodiscard]] std::vector<LayerGroup> layer_groups(const ModelSpec& model,
                                                   const SchemeRequest& requested);

/// The same of some of its layers.
[[nodiscard]] std::vector<LayerGroup> layer_groups(std::span<const std::vector<Scheme>> layers);

/// The caches of each layer in turn.
[[nodiscard]] std::vector<std::vector<Scheme>> layer_schemes(const ModelSpec& model,
                                                             const SchemeRequest& requested);

}  // namespace kvfathom::cache
