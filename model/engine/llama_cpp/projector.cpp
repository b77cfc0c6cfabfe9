#include "model/engine/llama_cpp/projector.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "model/engine/llama_cpp/graph/audio.h"
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

TensorGraph graph_of(const ProjectorSpec& projector, bool flash_attention) {
  return projector.modality == Modality::audio ? audio_graph(projector, flash_attention)
                                               : vision_graph(projector, flash_attention);
}

TensorGraph graph_on(const ProjectorSpec& projector, bool on_gpu, bool may_flash) {
  TensorGraph graph = graph_of(projector, may_flash);
  return on_gpu && !can_flash(graph) ? graph_of(projector, false) : graph;
}

void require_graph(const ProjectorSpec& projector) {
  const bool audio = projector.modality == Modality::audio;
  if (audio ? !has_audio_graph(projector) : !warm_up_pixels(projector)) {
    throw Unsupported("--mmproj",
                      std::string(audio ? "audio encoder" : "projector") + " type \"" +
                          projector.type + "\": no graph for its buffers",
                      audio ? "gemma4a, qwen2a, ultravox or voxtral"
                            : "gemma3, gemma4v, pixtral, qwen2vl, qwen2.5vl or qwen3vl");
  }
}

}  // namespace

ProjectorBytes projector_bytes(const ProjectorSpec& projector, bool on_gpu, bool may_flash) {
  require_graph(projector);
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
  result.interval_percent = result.provenance == Provenance::exact  ? 0
                            : projector.modality == Modality::audio ? 20
                                                                    : 10;
  return result;
}

std::optional<std::int64_t> output_width(const ProjectorSpec& projector) {
  const bool gemma = projector.type == "gemma3" || projector.type == "gemma4v";
  const bool audio = projector.modality == Modality::audio;
  const std::string_view last = gemma                         ? "mm.input_projection.weight"
                                : projector.type == "gemma4a" ? "mm.a.input_projection.weight"
                                : projector.type == "qwen2a"  ? "mm.a.fc.weight"
                                : audio                       ? "mm.a.mlp.2.weight"
                                                              : "mm.2.weight";
  const auto matrix = std::ranges::find(projector.tensors, last, &Tensor::name);
  if (matrix == projector.tensors.end()) {
    return std::nullopt;
  }
  return matrix->shape[projector.type == "gemma3" ? 0 : 1];  // Gemma-3 stores it transposed
}

}  // namespace kvfathom::llama_cpp
