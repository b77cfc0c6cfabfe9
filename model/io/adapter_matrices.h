// Which matrices of a model a stored adapter goes with.
#pragma once

#include <vector>

#include "model/architecture/model_spec.h"
#include "model/io/adapter_file.h"
#include "model/weights/lora.h"

namespace kvfathom {

/// The pairs of `file` in bytes. Each must be as wide as the model's matrix of its name, as
/// llama.cpp's llama_adapter_lora_init demands (norms in the file are not loaded: left out).
/// InputError names the file, the tensor, its shape and the right one. Unsupported: a module of a
/// PEFT adapter that no rule finds in the model.
[[nodiscard]] std::vector<LoraMatrix> adapter_matrices(const AdapterFile& file,
                                                       const ModelSpec& model);

}  // namespace kvfathom
