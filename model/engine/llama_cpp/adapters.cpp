#include "model/engine/llama_cpp/adapters.h"

#include <algorithm>
#include <map>

#include "model/engine/llama_cpp/placement.h"
#include "model/engine/llama_cpp/weights.h"
#include "model/rounding.h"

namespace kvfathom::llama_cpp {
namespace {

std::int64_t pair_bytes(const LoraMatrix& pair, std::int64_t unit_bytes, bool on_gpu) {
  const std::int64_t alignment = on_gpu ? kCudaAlignment : kHostAlignment;
  return round_up(pair.a * unit_bytes, alignment) + round_up(pair.b * unit_bytes, alignment);
}

}  // namespace

AdapterBytes adapter_bytes(const ModelSpec& model,
                           const EngineSettings& settings,
                           std::span<const LoraMatrix> matrices,
                           std::int64_t unit_bytes) {
  const LayerPlaces places = layer_places(model, model.tensors, split_of(settings));
  AdapterBytes held;
  held.gpu_bytes.assign(static_cast<std::size_t>(std::max(places.n_gpus, 0)), 0);
  std::map<std::int64_t, std::int64_t> host_layers;
  for (const LoraMatrix& pair : matrices) {
    const int device = place_of(places, pair.tensor);
    const std::int64_t bytes = pair_bytes(pair, unit_bytes, device >= 0);
    if (device >= 0) {
      held.gpu_bytes.at(static_cast<std::size_t>(device)) += bytes;
      continue;
    }
    held.host_bytes += bytes;
    std::int64_t& layer = host_layers[pair.layer];
    layer += bytes;
    held.largest_host_layer_bytes = std::max(held.largest_host_layer_bytes, layer);
  }
  return held;
}

}  // namespace kvfathom::llama_cpp
