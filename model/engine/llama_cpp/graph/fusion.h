// Chains of operations that the CUDA backend runs as one kernel, as far as they decide memory: what
// a fused kernel reads must not be overwritten before the chain's end, so the scheduler keeps it
// allocated until then (ggml-cuda.cu graph_optimize, llama.cpp 0.5.0).
#pragma once

#include <cstddef>
#include <vector>

#include "model/engine/llama_cpp/graph/tensor_graph.h"

namespace kvfathom::llama_cpp {

/// `tensor` stays allocated until `until` has run.
struct AllocationDependency {
  TensorId tensor = kNoTensor;
  TensorId until = kNoTensor;
};

/// How often each tensor is a source.
[[nodiscard]] std::vector<int> uses_of(const TensorGraph& graph);

/// The dependencies of the device's nodes [first, end), in order of `until`; `uses` is uses_of the
/// graph.
[[nodiscard]] std::vector<AllocationDependency> fusion_dependencies(const TensorGraph& graph,
                                                                    const std::vector<int>& uses,
                                                                    std::size_t first,
                                                                    std::size_t end);

}  // namespace kvfathom::llama_cpp
