// Bytes of weights that llama.cpp allocates per device, tensor by tensor.
//
// Source: llama.cpp 0.5.0: llama-model-loader.cpp (which buffer a tensor goes to), llama-model.cpp
// (split of the layers), ggml-alloc.c (sum of the tensors, each padded to the buffer's alignment),
// ggml-cuda.cu (what CUDA can hold, row padding), ggml-cpu/repack.cpp.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/engine/settings.h"

namespace kvfathom::llama_cpp {

inline constexpr std::int64_t kHostAlignment = 32;   // TENSOR_ALIGNMENT
inline constexpr std::int64_t kCudaAlignment = 128;  // alignment of CUDA buffers

/// Bytes of a tensor in a buffer of weights.
[[nodiscard]] std::int64_t buffer_bytes(const Tensor& tensor, bool on_gpu);

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

/// Which layers go where: the last `gpu_layers` (the output head counts as one) are split over
/// `n_gpus` GPUs by `shares` (llama.cpp's -ts, or the memory of each), evenly if there are none.
/// The experts of the first `host_expert_layers` layers stay on the host (--n-cpu-moe), and `moved`
/// says where else matrices are (--override-tensor).
struct LayerSplit {
  int n_gpus = 1;
  std::int64_t gpu_layers = std::numeric_limits<std::int64_t>::max();
  std::vector<double> shares = {};
  std::int64_t host_expert_layers = 0;
  std::vector<MovedLayer> moved = {};
};

/// The split, worked out.
struct LayerPlaces {
  int n_gpus = 0;
  /// The GPU of every layer, -1 on the host; the last entry is the output head's.
  std::vector<int> devices;
  std::int64_t host_expert_layers = 0;
  std::vector<MovedLayer> moved = {};  ///< with the host_expert_layers

  [[nodiscard]] bool all_on_gpus() const;
  /// Micro-batches overlap between GPUs: needs every layer on one, and no tensor moved by hand.
  [[nodiscard]] bool runs_as_pipeline() const;
};

/// `tensors` are the file's: blocks behind the model's own layers count as layers here.
[[nodiscard]] LayerPlaces layer_places(const ModelSpec& model,
                                       std::span<const Tensor> tensors,
                                       const LayerSplit& split);

/// The GPU of a tensor of the file by its name, -1: the host. The tables of rotary factors, of
/// which every device has a copy, are not asked for.
[[nodiscard]] int place_of(const LayerPlaces& places, std::string_view tensor);

struct PlacedWeights {
  std::vector<std::int64_t> gpu_bytes;  ///< one per GPU
  std::int64_t host_bytes = 0;          ///< CPU, CPU_REPACK and CUDA_Host buffers
};

[[nodiscard]] PlacedWeights placed_weights(const ModelSpec& model,
                                           std::span<const Tensor> tensors,
                                           const LayerSplit& split);

}  // namespace kvfathom::llama_cpp
