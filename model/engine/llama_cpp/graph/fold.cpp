#include "model/engine/llama_cpp/graph/fold.h"

#include <algorithm>

namespace kvfathom::llama_cpp {

namespace {

constexpr std::size_t kMaxPeriod = 8;
constexpr std::size_t kKeptRepeats = 3;

/// Layers [first, first + n) of which each equals the one `period` before it.
struct Stretch {
  std::size_t first = 0;
  std::size_t n = 0;
  std::size_t period = 1;

  /// Layers that can be left out; the layer behind the kept repeats has to stay.
  [[nodiscard]] std::size_t foldable() const {
    const std::size_t repeats = n > 0 ? (n - 1) / period : 0;
    return repeats > kKeptRepeats ? (repeats - kKeptRepeats) * period : 0;
  }
};

Stretch longest_stretch(const std::vector<LayerSpec>& layers, std::size_t period) {
  Stretch best{0, 0, period};
  std::size_t first = 0;
  for (std::size_t i = period; i <= layers.size(); ++i) {
    if (i < layers.size() && layers[i] == layers[i - period]) {
      continue;
    }
    const Stretch stretch{first, i - first, period};
    best = stretch.foldable() > best.foldable() ? stretch : best;
    first = i + 1 - period;
  }
  return best;
}

bool looks_at_all_layers(const ModelSpec& model) {
  return model.per_layer_embedding_size != 0 || model.altup_inputs != 0 ||
         std::ranges::any_of(model.layers, [](const LayerSpec& layer) {
           return std::holds_alternative<SharedAttention>(layer.mixer);
         });
}

/// Whether each layer brings tensors that are there from the start of the pass until it runs.
bool has_sparse_index(const ModelSpec& model) {
  return std::ranges::any_of(model.layers, [](const LayerSpec& layer) {
    const auto* latent = std::get_if<LatentAttention>(&layer.mixer);
    return latent != nullptr && latent->indexer;
  });
}

}  // namespace

FoldedModel fold_layers(const ModelSpec& model) {
  FoldedModel folded{model};
  if (looks_at_all_layers(model) || has_sparse_index(model)) {
    return folded;
  }
  Stretch best;
  for (std::size_t period = 1; period <= kMaxPeriod; ++period) {
    const Stretch stretch = longest_stretch(model.layers, period);
    best = stretch.foldable() > best.foldable() ? stretch : best;
  }
  // What does not settle is built over all layers besides: that is no loss only if few are kept.
  if (2 * best.foldable() <= model.layers.size()) {
    return folded;
  }
  folded.second_boundary = best.first + (kKeptRepeats - 1) * best.period;
  folded.third_boundary = best.first + kKeptRepeats * best.period;
  const auto from =
      folded.model.layers.begin() + static_cast<std::ptrdiff_t>(folded.third_boundary);
  folded.model.layers.erase(from, from + static_cast<std::ptrdiff_t>(best.foldable()));
  return folded;
}

ModelSpec one_layer_of_each_kind(const ModelSpec& model) {
  ModelSpec reduced = model;
  if (looks_at_all_layers(model)) {
    return reduced;
  }
  reduced.layers.clear();
  for (const LayerSpec& layer : model.layers) {
    if (std::ranges::find(reduced.layers, layer) == reduced.layers.end()) {
      reduced.layers.push_back(layer);
    }
  }
  return reduced;
}

}  // namespace kvfathom::llama_cpp
