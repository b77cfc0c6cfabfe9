#include "model/engine/llama_cpp/placement.h"

#include <algorithm>

#include "model/engine/llama_cpp/overrides.h"
#include "model/error.h"

namespace kvfathom::llama_cpp {
namespace {

constexpr int kMostGpus = 16;  // GGML_CUDA_MAX_DEVICES
constexpr std::int64_t kMiB = std::int64_t{1} << 20;

/// -ts: layers of each GPU, or MiB of its memory. Empty: alike.
std::vector<std::int64_t> shares_of(const EngineSettings& settings) {
  if (!settings.layers_per_gpu.empty()) {
    return settings.layers_per_gpu;
  }
  std::vector<std::int64_t> shares;
  for (const std::int64_t bytes : settings.gpu_memory_bytes) {
    shares.push_back(bytes / kMiB);
  }
  return shares;
}

}  // namespace

bool is_spread(const EngineSettings& settings) {
  return settings.n_gpus > 1 ||
         (settings.n_gpus == 1 &&
          (settings.gpu_layers || settings.cpu_moe_layers > 0 || !settings.moved_layers.empty()));
}

LayerSplit split_of(const EngineSettings& settings) {
  LayerSplit split{.n_gpus = settings.n_gpus};
  split.gpu_layers = settings.gpu_layers.value_or(split.gpu_layers);
  for (const std::int64_t share : shares_of(settings)) {
    split.shares.push_back(static_cast<double>(share));
  }
  split.host_expert_layers = settings.cpu_moe_layers;
  split.moved = settings.moved_layers;
  return split;
}

void refuse_placement(const ModelSpec& model, const EngineSettings& settings) {
  if (settings.n_gpus > kMostGpus) {
    throw InputError("--gpus",
                     std::to_string(settings.n_gpus) + " devices",
                     "at most " + std::to_string(kMostGpus) + ", the most that llama.cpp takes");
  }
  if (settings.n_gpus == 0 && (settings.gpu_layers || settings.cpu_moe_layers > 0)) {
    throw InputError(settings.gpu_layers ? "--gpu-layers" : "--cpu-moe-layers",
                     "given without a GPU",
                     "leave it out: everything is on the host");
  }
  const bool has_experts = std::ranges::any_of(model.layers, [](const LayerSpec& layer) {
    return std::holds_alternative<MixtureOfExperts>(layer.feed_forward);
  });
  if (settings.cpu_moe_layers > 0 && !has_experts) {
    throw InputError("--cpu-moe-layers", "given, but the model has no experts", "leave it out");
  }
}

std::optional<Placement> placement_of(const LayerPlaces& places, std::int64_t n_layers) {
  if (places.devices.empty()) {
    return std::nullopt;
  }
  Placement result;
  result.host_expert_layers = std::min(places.host_expert_layers, n_layers);
  for (const MovedLayer& moved : places.moved) {
    const bool is_counted = moved.layer < result.host_expert_layers;
    if (!is_counted && moved.layer < n_layers) {
      result.moved.push_back(moved);
    }
  }
  for (int index = 0; index <= places.n_gpus; ++index) {
    const int device = index == places.n_gpus ? Device::kHost : index;
    if (const auto n = std::ranges::count(places.devices, device); n > 0) {
      result.layers.emplace_back(Device{device}, n);
    }
  }
  return result;
}

std::string placement_options(const EngineSettings& settings, std::int64_t n_layers) {
  if (settings.n_gpus == 0) {
    return " --device none";
  }
  std::string text = " -ngl " + std::to_string(settings.gpu_layers.value_or(999));
  if (settings.n_gpus > 1) {
    text += " -ts ";
    std::vector<std::int64_t> shares = shares_of(settings);
    shares.resize(static_cast<std::size_t>(settings.n_gpus), 1);
    for (std::size_t gpu = 0; gpu < shares.size(); ++gpu) {
      text += (gpu == 0 ? "" : ",") + std::to_string(shares[gpu]);
    }
  }
  if (settings.cpu_moe_layers >= n_layers) {
    text += " --cpu-moe";
  } else if (settings.cpu_moe_layers > 0) {
    text += " --n-cpu-moe " + std::to_string(settings.cpu_moe_layers);
  }
  return text + override_options(settings.moved_layers);
}

}  // namespace kvfathom::llama_cpp
