// The model as llama.cpp sees it, which is not always what the model is.
#pragma once

#include "model/architecture/model_spec.h"
#include "model/engine/llama_cpp/behaviours.h"
#include "model/engine/settings.h"

namespace kvfathom::llama_cpp {

/// How latent layers are cached when `requested` is asked of a build with these behaviours.
[[nodiscard]] CacheScheme latent_scheme(CacheScheme requested, const Behaviours& behaviours);

/// The model as the graph of this build treats it: architectures whose window key llama.cpp does
/// not read attend to everything, and latent layers that are not cached as a latent are plain
/// attention. Of the tensors those of the first two layers stay: they say what is stored fused.
[[nodiscard]] ModelSpec engine_view(const ModelSpec& model, CacheScheme latent_scheme);

}  // namespace kvfathom::llama_cpp
