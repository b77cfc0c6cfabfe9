#include "model/engine/llama_cpp/weights.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "model/rounding.h"
#include "model/weights/tensor_name.h"

namespace kvfathom::llama_cpp {
namespace {

constexpr std::int64_t kCudaRowPadding = 512;  // MATRIX_ROW_PADDING: elements
constexpr int kHost = -1;

constexpr auto kInputTensors = std::to_array<std::string_view>({
    "token_embd.weight",
    "position_embd.weight",
    "token_types.weight",
    "per_layer_token_embd.weight",
});

// Stored once, used by every layer: each buffer that holds a layer gets a copy.
constexpr auto kPerLayerFactors = std::to_array<std::string_view>({
    "rope_freqs.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
});

// Outside the blocks, but placed with layer 0.
constexpr auto kFirstLayerTensors = std::to_array<std::string_view>({
    "token_embd_norm",
    "per_layer_model_proj",
    "per_layer_proj_norm",
});

std::int64_t host_bytes(const Tensor& t) {
  return round_up(data_bytes(t), kHostAlignment);
}

/// CUDA reads whole tiles of a quantised row: the last row gets room for a full one.
std::int64_t cuda_bytes(const Tensor& t) {
  const std::int64_t beyond = t.shape[0] % kCudaRowPadding;
  const bool quantised = info(t.dtype).block_elements > 1;
  const std::int64_t room =
      quantised && beyond != 0 ? row_bytes(t.dtype, kCudaRowPadding - beyond) : 0;
  return round_up(data_bytes(t) + room, kCudaAlignment);
}

template <std::size_t N>
bool any_prefix(std::string_view name, const std::array<std::string_view, N>& prefixes) {
  return std::ranges::any_of(prefixes, [&](std::string_view p) { return name.starts_with(p); });
}

/// Whether CUDA's scan runs over the state of this mixer; ssm_a stays on the host otherwise.
bool cuda_scans(const Mixer& mixer) {
  const auto scans = [](const Mamba2& m) {
    return (m.d_state == 128 || m.d_state == 256) && m.n_heads > 0 &&
           m.d_inner / m.n_heads % 16 == 0;
  };
  if (const auto* mamba2 = std::get_if<Mamba2>(&mixer)) {
    return scans(*mamba2);
  }
  if (const auto* both = std::get_if<ParallelMixers>(&mixer)) {
    return scans(both->mamba2);
  }
  if (const auto* mamba = std::get_if<Mamba>(&mixer)) {
    return mamba->d_state == 16 && mamba->d_inner % 128 == 0;
  }
  // the loader asks for a scan here too, with an empty state, and CUDA declines
  return !std::holds_alternative<KimiDeltaAttention>(mixer);
}

/// Whether CUDA has the tensor's operation for its type and shape.
bool cuda_holds(const ModelSpec& model, const Tensor& t, std::int64_t block) {
  const std::string_view name = t.name;
  if (t.dtype == DType::tq1_0 || t.dtype == DType::tq2_0) {
    return false;
  }
  if (block != kNoBlock && name.ends_with(".ssm_a")) {
    return cuda_scans(model.layers[static_cast<std::size_t>(block)].mixer);
  }
  const bool convolution =
      name.ends_with(".ssm_conv1d.weight") || name.ends_with(".shortconv.conv.weight");
  return !convolution || t.shape[1] % 128 == 0;
}

/// Whether the CPU keeps a matrix interleaved in a buffer of its own (AVX2; CPU_REPACK). Only a
/// tied embedding cares: its copy as output head is then a second one.
bool cpu_repacks(const Tensor& t) {
  constexpr auto kTypes =
      std::to_array<DType>({DType::q4_0, DType::q4_k, DType::iq4_nl, DType::mxfp4});
  return std::ranges::find(kTypes, t.dtype) != kTypes.end() && t.shape[1] % 8 == 0;
}

/// Upper ends of the GPUs' shares of [0, 1], in float as the engine has them.
std::vector<float> share_ends(const LayerSplit& split) {
  std::vector<float> ends;
  float sum = 0.0F;
  for (int gpu = 0; gpu < split.n_gpus; ++gpu) {
    sum += split.shares.empty() ? 1.0F
                                : static_cast<float>(split.shares[static_cast<std::size_t>(gpu)]);
    ends.push_back(sum);
  }
  for (float& end : ends) {
    end /= sum;
  }
  return ends;
}

/// The device of every layer; the last entry is the output head's.
std::vector<int> devices_of(std::int64_t n_blocks, const LayerSplit& split) {
  std::vector<int> devices(static_cast<std::size_t>(n_blocks) + 1, kHost);
  const std::int64_t on_gpu = split.n_gpus > 0 ? std::min(split.gpu_layers, n_blocks + 1) : 0;
  const std::vector<float> ends = share_ends(split);
  for (std::int64_t i = 0; i < on_gpu; ++i) {
    const float at = static_cast<float>(i) / static_cast<float>(on_gpu);
    const auto gpu = std::upper_bound(ends.begin(), ends.end(), at) - ends.begin();
    devices[static_cast<std::size_t>(n_blocks + 1 - on_gpu + i)] =
        std::min(static_cast<int>(gpu), split.n_gpus - 1);
  }
  return devices;
}

/// Matrices and biases of routed experts.
bool is_expert(std::string_view name) {
  return name.find(".ffn_") != std::string_view::npos &&
         name.find("exps.") != std::string_view::npos;
}

/// Whether the patterns of common/fit.cpp (get_overflow_pattern) take the tensor of a block: they
/// match by prefix, so "ffn_gate" takes the router (ffn_gate_inp) and shared experts along.
bool moves(MovedMatrices matrices, std::string_view name) {
  const bool up = name.find(".ffn_up") != std::string_view::npos;
  const bool down = name.find(".ffn_down") != std::string_view::npos;
  const bool gate = name.find(".ffn_gate") != std::string_view::npos;
  switch (matrices) {
    case MovedMatrices::experts:
      return is_expert(name);
    case MovedMatrices::all:
      return up || gate || down;
    case MovedMatrices::all_but_up:
      return gate || down;
    case MovedMatrices::down:
      return down;
  }
  return false;
}

class Placer {
 public:
  Placer(const ModelSpec& model, std::span<const Tensor> tensors, const LayerSplit& split)
      : model_(model), places_(layer_places(model, tensors, split)) {
    placed_.gpu_bytes.assign(static_cast<std::size_t>(std::max(split.n_gpus, 0)), 0);
  }

  void place(const Tensor& t) {
    const std::int64_t block = block_of(t.name);
    if (block >= n_layers(model_)) {
      return;
    }
    if (any_prefix(t.name, kPerLayerFactors)) {
      const std::vector<int>& devices = places_.devices;
      std::vector<int> holders(devices.begin(), devices.begin() + n_layers(model_));
      std::sort(holders.begin(), holders.end());
      holders.erase(std::unique(holders.begin(), holders.end()), holders.end());
      for (const int device : holders) {
        add(t, device, block);
      }
    } else {
      add(t, place_of(places_, t.name), block);
    }
  }

  /// The token embedding once more, as the output head.
  void place_tied_output(const Tensor& embedding) {
    const int device = places_.devices.back();
    if (device != kHost || cpu_repacks(embedding)) {
      add(embedding, device, kNoBlock);
    }
  }

  [[nodiscard]] const PlacedWeights& placed() const { return placed_; }

 private:
  void add(const Tensor& t, int device, std::int64_t block) {
    if (device == kHost || !cuda_holds(model_, t, block)) {
      placed_.host_bytes += host_bytes(t);
    } else {
      placed_.gpu_bytes[static_cast<std::size_t>(device)] += cuda_bytes(t);
    }
  }

  const ModelSpec& model_;
  const LayerPlaces places_;
  PlacedWeights placed_;
};

}  // namespace

std::int64_t buffer_bytes(const Tensor& tensor, bool on_gpu) {
  return on_gpu ? cuda_bytes(tensor) : host_bytes(tensor);
}

bool LayerPlaces::all_on_gpus() const {
  return !devices.empty() && devices.front() != kHost;  // the last layers go first
}

bool LayerPlaces::runs_as_pipeline() const {
  return n_gpus > 1 && all_on_gpus() && moved.empty();
}

LayerPlaces layer_places(const ModelSpec& model,
                         std::span<const Tensor> tensors,
                         const LayerSplit& split) {
  std::int64_t n_blocks = n_layers(model);
  for (const Tensor& t : tensors) {
    n_blocks = std::max(n_blocks, block_of(t.name) + 1);
  }
  LayerPlaces places{
      split.n_gpus, devices_of(n_blocks, split), split.host_expert_layers, split.moved};
  for (std::int64_t i = 0; i < std::min(split.host_expert_layers, n_layers(model)); ++i) {
    places.moved.push_back({i, MovedMatrices::experts, kHost});
  }
  return places;
}

int place_of(const LayerPlaces& places, std::string_view tensor) {
  const std::int64_t block = block_of(tensor);
  if (block != kNoBlock) {
    const auto moved = std::ranges::find_if(places.moved, [&](const MovedLayer& m) {
      return m.layer == block && moves(m.matrices, tensor);
    });
    return moved == places.moved.end() ? places.devices.at(static_cast<std::size_t>(block))
                                       : moved->device;
  }
  if (any_prefix(tensor, kInputTensors)) {
    return kHost;
  }
  return any_prefix(tensor, kFirstLayerTensors) ? places.devices.front() : places.devices.back();
}

PlacedWeights placed_weights(const ModelSpec& model,
                             std::span<const Tensor> tensors,
                             const LayerSplit& split) {
  Placer placer(model, tensors, split);
  const Tensor* embedding = nullptr;
  bool output = false;
  for (const Tensor& t : tensors) {
    placer.place(t);
    embedding = t.name == "token_embd.weight" ? &t : embedding;
    output = output || t.name == "output.weight";
  }
  if (embedding != nullptr && !output) {
    placer.place_tied_output(*embedding);
  }
  return placer.placed();
}

WeightBytes weight_bytes(const ModelSpec& model, std::span<const Tensor> tensors, bool on_gpu) {
  const PlacedWeights placed = placed_weights(model, tensors, {.n_gpus = on_gpu ? 1 : 0});
  return {on_gpu ? placed.gpu_bytes.front() : 0, placed.host_bytes};
}

}  // namespace kvfathom::llama_cpp
