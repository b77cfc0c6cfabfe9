#include "model/engine/ideal_stages.h"

#include <algorithm>
#include <numeric>

#include "model/error.h"

namespace kvfathom {
namespace {

/// The smallest memory of each stage's devices; equal ones where all are alike.
std::vector<std::int64_t> stage_memory(const EngineSettings& settings, std::int64_t stages) {
  std::vector<std::int64_t> memory(static_cast<std::size_t>(stages), 1);
  const auto ranks = static_cast<std::size_t>(settings.tensor_parallel);
  if (settings.gpu_memory_bytes.size() == memory.size() * ranks) {
    for (std::size_t i = 0; i < memory.size(); ++i) {
      const auto first = settings.gpu_memory_bytes.begin() + static_cast<std::ptrdiff_t>(i * ranks);
      memory[i] = *std::min_element(first, first + settings.tensor_parallel);
    }
  }
  return memory;
}

/// Layers in proportion to memory, rounded to the nearest bound, at least one a stage.
std::vector<std::int64_t> bounds_by_memory(std::int64_t n_layers,
                                           const std::vector<std::int64_t>& memory) {
  const std::int64_t all = std::accumulate(memory.begin(), memory.end(), std::int64_t{0});
  std::vector<std::int64_t> bounds{0};
  std::int64_t sum = 0;
  auto stages_left = static_cast<std::int64_t>(memory.size());
  for (const std::int64_t bytes : memory) {
    sum += bytes;
    --stages_left;
    const std::int64_t nearest = (2 * n_layers * sum + all) / (2 * all);
    bounds.push_back(std::max(bounds.back() + 1, std::min(nearest, n_layers - stages_left)));
  }
  return bounds;
}

}  // namespace

serving::Parallel ideal_parallel(const ModelSpec& model, const EngineSettings& settings) {
  const std::int64_t n_devices = std::max(1, settings.n_gpus);
  const std::int64_t ranks = settings.tensor_parallel;
  const auto gpus = [&](const std::string& text, const std::string& hint) {
    return InputError("--gpus", std::to_string(settings.n_gpus) + " devices for " + text, hint);
  };
  if (settings.data_parallel > 1) {
    throw Unsupported("--data-parallel",
                      "the ideal engine prices one replica",
                      "leave it out; every replica holds the same");
  }
  if (n_devices % ranks != 0) {
    throw gpus(std::to_string(ranks) + " ranks", "give a multiple of --tensor-parallel");
  }
  const std::int64_t stages = n_devices / ranks;
  if (settings.pipeline_parallel > 1 && settings.pipeline_parallel != stages) {
    throw gpus(std::to_string(settings.pipeline_parallel * ranks) + " ranks",
               "--tensor-parallel x --pipeline-parallel must equal it");
  }
  const auto n_layers = static_cast<std::int64_t>(model.layers.size());
  if (stages > n_layers) {
    throw gpus(std::to_string(n_layers) + " layers", "at most one device per layer");
  }
  return {.tensor = ranks,
          .attention = ranks,
          .experts = ranks,
          .stages = stages,
          .stage_bounds = bounds_by_memory(n_layers, stage_memory(settings, stages))};
}

}  // namespace kvfathom
