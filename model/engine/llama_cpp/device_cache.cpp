#include "model/engine/llama_cpp/device_cache.h"

#include <algorithm>

namespace kvfathom::llama_cpp {
namespace {

TensorPadding padding_of(Device device) {
  return device.index == Device::kHost ? kCpuPadding : kCudaPadding;
}

/// Adds what another device holds of the same model.
void join(CacheReport& all, const CacheReport& part) {
  all.k_bytes += part.k_bytes;
  all.v_bytes += part.v_bytes;
  all.state_bytes += part.state_bytes;
  all.bytes_per_token += part.bytes_per_token;
  all.fixed_bytes_per_sequence += part.fixed_bytes_per_sequence;
  for (const CacheGroup& group : part.groups) {
    const auto same = std::ranges::find_if(all.groups, [&](const CacheGroup& g) {
      return g.scheme == group.scheme && g.cells == group.cells;
    });
    if (same == all.groups.end()) {
      all.groups.push_back(group);
      continue;
    }
    same->n_layers += group.n_layers;
    same->k_bytes += group.k_bytes;
    same->v_bytes += group.v_bytes;
    same->state_bytes += group.state_bytes;
  }
}

}  // namespace

DeviceCaches::DeviceCaches(const ModelSpec& view,
                           CacheScheme latent_scheme,
                           DType type_k,
                           DType type_v,
                           bool v_transposed,
                           Device whole,
                           const LayerPlaces& places) {
  if (places.devices.empty()) {
    sizers_.emplace_back(
        whole, CacheSizer(view, latent_scheme, type_k, type_v, v_transposed, padding_of(whole)));
    return;
  }
  for (int index = Device::kHost; index < places.n_gpus; ++index) {
    std::vector<bool> kept(view.layers.size());
    for (std::size_t i = 0; i < kept.size(); ++i) {
      kept[i] = places.devices[i] == index;
    }
    if (std::ranges::find(kept, true) != kept.end()) {
      const Device device{index};
      sizers_.emplace_back(
          device,
          CacheSizer(view, latent_scheme, type_k, type_v, v_transposed, padding_of(device), kept));
    }
  }
}

CacheReport DeviceCaches::report(const Cells& cells,
                                 const CellSettings& settings,
                                 std::vector<DeviceCacheBytes>& by_device) const {
  CacheReport all;
  by_device.reserve(sizers_.size());
  for (const auto& [device, sizer] : sizers_) {
    CacheReport part = sizer.report(cells, settings);
    by_device.push_back({device, part.k_bytes + part.v_bytes, part.state_bytes});
    if (sizers_.size() == 1) {
      return part;
    }
    join(all, part);
  }
  return all;
}

std::int64_t DeviceCaches::bytes(Device device,
                                 const Cells& cells,
                                 const CellSettings& settings) const {
  for (const auto& [place, sizer] : sizers_) {
    if (place == device) {
      return sizer.bytes(cells, settings);
    }
  }
  return 0;
}

std::int64_t DeviceCaches::window_tokens() const {
  std::int64_t tokens = 0;
  for (const auto& [device, sizer] : sizers_) {
    tokens = std::max(tokens, sizer.window_tokens());
  }
  return tokens;
}

}  // namespace kvfathom::llama_cpp
