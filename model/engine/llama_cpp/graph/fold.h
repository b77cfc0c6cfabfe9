// A model with most repeats of its repeating layers left out: what a pass needs of memory does not
// depend on how often equal layers follow each other once the allocator has settled.
#pragma once

#include <cstddef>

#include "model/architecture/model_spec.h"

namespace kvfathom::llama_cpp {

struct FoldedModel {
  ModelSpec model;
  /// First layers behind the second and the third repeat that were kept. If the allocator stands
  /// there the same both times, every repeat left out would have left it so, too. Both 0: nothing
  /// was left out.
  std::size_t second_boundary = 0;
  std::size_t third_boundary = 0;
};

/// Keeps three repeats of the longest stretch of repeating layers (periods up to 8), and all else.
/// Models of which that would leave out no more than half, whose pass looks at all layers at once
/// (shared caches, embeddings per layer), or whose layers all have tensors at its start (a sparse
/// index), are left as they are.
[[nodiscard]] FoldedModel fold_layers(const ModelSpec& model);

/// The first layer of each kind: enough to see which operations a backend runs. Models whose pass
/// looks at all layers at once are left as they are.
[[nodiscard]] ModelSpec one_layer_of_each_kind(const ModelSpec& model);

}  // namespace kvfathom::llama_cpp
