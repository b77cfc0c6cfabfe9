// Which backend runs what, and what is copied between them: ggml's scheduler (ggml-backend.cpp,
// 2026-08/09) for any number of GPUs and the host.
#pragma once

#include <cstdint>
#include <vector>

#include "model/engine/llama_cpp/graph/tensor_graph.h"

namespace kvfathom::llama_cpp {

/// Index of a backend, by descending priority; the host is the last one.
using BackendId = std::int8_t;

/// What the scheduler has to know about the machine.
struct Machine {
  int n_gpus = 0;  ///< 0: the host is the only backend
  /// Norms are assigned to their layer's device by hand, in passes of few tokens. In larger ones
  /// the norm behind a boundary runs on the device before it, and both it and its input cross.
  bool pins_norms = true;
  /// Copies of what crosses from one GPU to the next, so that micro-batches overlap: 4 with
  /// pipeline parallelism (GGML_SCHED_MAX_COPIES), else 1.
  int n_copies = 1;
  [[nodiscard]] bool is_gpu(BackendId b) const { return b < n_gpus; }
  [[nodiscard]] BackendId host() const { return static_cast<BackendId>(n_gpus); }
  [[nodiscard]] std::size_t n_backends() const { return static_cast<std::size_t>(n_gpus) + 1; }
};

/// One entry of the order in which tensors are allocated and freed.
struct Step {
  TensorId tensor = kNoTensor;
  TensorId keeps = kNoTensor;  ///< not an operation: holds this tensor until its copy is made
  BackendId backend = 0;
};

struct Leaf {
  TensorId tensor = kNoTensor;
  BackendId backend = 0;
};

struct Schedule {
  std::vector<Leaf> leafs;
  std::vector<Step> steps;
};

/// Assigns backends, splits the pass and adds copies of what crosses from one split to another to
/// `graph`, whose sources are rewired to them.
[[nodiscard]] Schedule schedule(TensorGraph& graph, const Machine& machine);

/// True if the CUDA backend runs this operation (ggml-cuda.cu, supports_op). `id` must be a node of
/// `graph`.
[[nodiscard]] bool cuda_supports(const TensorGraph& graph, TensorId id);

/// True if the CUDA backend takes this operation from the host and copies its weights for it
/// (offload_op): from 32 rows on.
[[nodiscard]] bool cuda_offloads(const TensorGraph& graph, TensorId id);

/// Bytes the CUDA backend reserves for a tensor: rows of quantised types are padded to 512
/// elements, and FlashAttention over a cache that is not F16 converts K and V behind its result.
[[nodiscard]] Affine cuda_alloc_bytes(const TensorGraph& graph, TensorId id);

}  // namespace kvfathom::llama_cpp
