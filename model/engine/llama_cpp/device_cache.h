// The caches of a model whose layers are spread over devices: every layer's is where the layer is.
#pragma once

#include <utility>
#include <vector>

#include "model/engine/llama_cpp/cache_size.h"
#include "model/engine/llama_cpp/weights.h"
#include "model/memory/ledger.h"

namespace kvfathom::llama_cpp {

/// K and V, and state, of one device.
struct DeviceCacheBytes {
  Device device;
  std::int64_t kv_bytes = 0;
  std::int64_t state_bytes = 0;
};

class DeviceCaches {
 public:
  /// One sizer per device that holds layers. `places` empty of devices: all on `whole`.
  DeviceCaches(const ModelSpec& view,
               CacheScheme latent_scheme,
               DType type_k,
               DType type_v,
               bool v_transposed,
               Device whole,
               const LayerPlaces& places);

  /// All devices together, groups of one scheme joined, and into `by_device` what each holds.
  [[nodiscard]] CacheReport report(const Cells& cells,
                                   const CellSettings& settings,
                                   std::vector<DeviceCacheBytes>& by_device) const;

  [[nodiscard]] std::int64_t bytes(Device device,
                                   const Cells& cells,
                                   const CellSettings& settings) const;

  [[nodiscard]] std::int64_t window_tokens() const;

 private:
  std::vector<std::pair<Device, CacheSizer>> sizers_;
};

}  // namespace kvfathom::llama_cpp
