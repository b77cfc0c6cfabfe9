// Which weight tensors a model has, from its ModelSpec alone, as a GGUF file would store them.
#pragma once

#include <vector>

#include "model/architecture/model_spec.h"
#include "model/architecture/tensor.h"

namespace kvfathom {

/// Every tensor that llama.cpp's converter (mid 2026) writes for the decoder of `model`: GGUF
/// names, shapes in ggml order (a matrix from n to m is {n, m}; experts are merged, {n, m,
/// n_experts}; an MLA up-projection is split into attn_k_b and attn_v_b). Norms, biases, routers,
/// convolutions and state constants are f32, all else is `model.weight_dtype`, or bf16 if that is
/// not known. Multi-token-prediction layers and vision towers (`model.extras`) are not in it:
/// llama.cpp loads neither with the decoder. An architecture that llama.cpp lacks is listed in
/// the same style.
[[nodiscard]] std::vector<Tensor> tensor_inventory(const ModelSpec& model);

}  // namespace kvfathom
