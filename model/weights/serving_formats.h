// Weight formats of the engines that serve Hugging Face checkpoints: which matrices they pack,
// and the scales that come with them.
#pragma once

#include <vector>

#include "model/architecture/tensor.h"
#include "model/weights/recipe.h"

namespace kvfathom {

/// The tensors with every matrix of the blocks packed as `recipe` says; embeddings, output head,
/// routers, norms and convolutions stay as they are, as the quantisers' default ignore lists have
/// it. A rule, not a file: checkpoints may leave out more (attention, shared experts).
[[nodiscard]] std::vector<Tensor> packed_for_serving(const std::vector<Tensor>& tensors,
                                                     const WeightRecipe& recipe);

}  // namespace kvfathom
