#include "model/engine/llama_cpp/projector.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "model/engine/llama_cpp/graph/lifetime.h"
#include "model/engine/llama_cpp/graph/pass_program.h"
#include "model/engine/llama_cpp/graph/schedule.h"
#include "model/engine/llama_cpp/graph/vision.h"
#include "model/engine/llama_cpp/weights.h"
#include "model/error.h"

namespace kvfathom::llama_cpp {
namespace {

/// Bounds of clamps are read as numbers: they get no room in the buffer.
bool is_bound(const std::string& name) {
  return name.ends_with(".input_max") || name.ends_with(".input_min") ||
         name.ends_with(".output_max") || name.ends_with(".output_min");
}

bool can_flash(const TensorGraph& graph) {
  return std::ranges::all_of(graph.nodes(), [&](TensorId t) {
    return graph[t].op != Op::flash_attention || cuda_supports(graph, t);
  });
}

TensorGraph graph_on(const ProjectorSpec& projector, bool on_gpu, bool may_flash) {
  TensorGraph graph = vision_graph(projector, may_flash);
  return on_gpu && !can_flash(graph) ? vision_graph(projector, false) : graph;
}

}  // namespace

ProjectorBytes projector_bytes(const ProjectorSpec& projector, bool on_gpu, bool may_flash) {
  if (!warm_up_pixels(projector)) {
    throw Unsupported("--mmproj",
                      "projector type \"" + projector.type + "\": no graph for its buffers",
                      "gemma3, gemma4v, pixtral, qwen2vl, qwen2.5vl or qwen3vl");
  }
  if (projector.has_audio) {
    throw Unsupported("--mmproj", "an audio encoder: no graph for its buffers", "");
  }
  ProjectorBytes result;
  for (const Tensor& t : projector.tensors) {
    result.weights_bytes += is_bound(t.name) ? 0 : buffer_bytes(t, on_gpu);
  }
  const Machine machine{.n_gpus = on_gpu ? 1 : 0, .pins_norms = false};
  TensorGraph graph = graph_on(projector, on_gpu, may_flash);
  const Schedule order = schedule(graph, machine);
  const std::vector<Event> events = lifetimes(graph, order, machine);
  const std::int64_t host_bytes = replay(events, machine.host(), kHostAlignment, {});
  result.compute_bytes = on_gpu ? replay(events, 0, kCudaAlignment, {}) : host_bytes;
  result.input_bytes = on_gpu ? host_bytes : 0;
  result.provenance = projector.type == "qwen3vl_merger" ? Provenance::exact : Provenance::modelled;
  return result;
}

std::optional<std::int64_t> output_width(const ProjectorSpec& projector) {
  const bool gemma = projector.type == "gemma3" || projector.type == "gemma4v";
  const std::string_view last = gemma ? "mm.input_projection.weight" : "mm.2.weight";
  const auto matrix = std::ranges::find(projector.tensors, last, &Tensor::name);
  if (matrix == projector.tensors.end()) {
    return std::nullopt;
  }
  return matrix->shape[projector.type == "gemma3" ? 0 : 1];  // Gemma-3 stores it transposed
}

}  // namespace kvfathom::llama_cpp
