// Bytes of weights that llama.cpp allocates per device, tensor by tensor.
//
// Source: llama.cpp 0.5.0: llama-model-loader.cpp (which buffer a tensor goes to), llama-model.cpp
// (split of the layers), ggml-alloc.c (sum of the tensors, each padded to the buffer's alignment),
// ggml-cuda.cu (what CUDA can hold, row padding), ggml-cpu/repack.cpp.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "model/architecture/model_spec.h"

namespace kvfathom::llama_cpp {

struct WeightBytes {
  std::int64_t device_bytes = 0;
  std::int64_t host_bytes = 0;
};

/// Weights with all layers on one GPU (CUDA), or with everything on the CPU. `tensors` are those
/// of the file: with the token embedding on the host and, where the output head is tied to it, a
/// second time on the GPU; without multi-token-prediction blocks, which are skipped.
[[nodiscard]] WeightBytes weight_bytes(const ModelSpec& model,
                                       std::span<const Tensor> tensors,
                                       bool on_gpu);

/// Which layers go where: the last `gpu_layers` (the output head counts as one) are split evenly
/// over `n_gpus` equal GPUs.
struct LayerSplit {
  int n_gpus = 1;
  std::int64_t gpu_layers = std::numeric_limits<std::int64_t>::max();
};

struct PlacedWeights {
  std::vector<std::int64_t> gpu_bytes;  ///< one per GPU
  std::int64_t host_bytes = 0;          ///< CPU, CPU_REPACK and CUDA_Host buffers
};

[[nodiscard]] PlacedWeights placed_weights(const ModelSpec& model,
                                           std::span<const Tensor> tensors,
                                           const LayerSplit& split);

}  // namespace kvfathom::llama_cpp
