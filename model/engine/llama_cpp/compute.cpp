#include "model/engine/llama_cpp/compute.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "model/engine/llama_cpp/graph/arch/arch.h"
#include "model/engine/llama_cpp/graph/builder.h"
#include "model/engine/llama_cpp/graph/fold.h"
#include "model/engine/llama_cpp/graph/lifetime.h"
#include "model/engine/llama_cpp/graph/pass_program.h"
#include "model/engine/llama_cpp/graph/schedule.h"
#include "model/error.h"
#include "model/rounding.h"
#include "model/weights/tensor_name.h"

namespace kvfathom::llama_cpp {

namespace {

constexpr std::int64_t kFewTokens = 32;
constexpr int kPipelineCopies = 4;  // GGML_SCHED_MAX_COPIES

Machine machine_of(const GraphSettings& settings) {
  const LayerPlaces& places = settings.places;
  if (places.devices.empty()) {
    return {.n_gpus = settings.backend == Backend::cuda ? 1 : 0};
  }
  return {.n_gpus = places.n_gpus,
          .pins_norms = reserved_tokens(settings) < kFewTokens,
          .n_copies = places.runs_as_pipeline() ? kPipelineCopies : 1};
}

/// What the graph has to know of weights that stay on the host while the pass runs on GPUs.
void place_layers(const ModelSpec& model, const LayerPlaces& places, TensorGraph& graph) {
  const auto n_layers = static_cast<std::int64_t>(model.layers.size());
  std::vector<int> devices(places.devices.begin(), places.devices.begin() + n_layers);
  devices.push_back(places.devices.back());
  graph.set_places(devices);
  graph.set_moved(places.moved);
  HostMatrices matrices;
  for (const Tensor& t : model.tensors) {
    const std::int64_t block = block_of(t.name);
    if (t.shape[1] > 1) {
      const bool experts = t.name.find("exps.") != std::string::npos;
      matrices[{block == kNoBlock ? n_layers : block, experts, t.shape[0], t.shape[1]}].push_back(
          &t);
    }
  }
  graph.set_host_matrices(std::move(matrices));
}

/// The graph of one pass over `n_tokens` for caches of at most `max_cells`.
Builder build(const ModelSpec& model,
              const GraphSettings& settings,
              std::int64_t n_tokens,
              std::int64_t max_cells = INT64_MAX) {
  Builder builder(model, settings, n_tokens);
  builder.max_cells = max_cells;
  if (!settings.places.devices.empty()) {
    place_layers(model, settings.places, builder.graph);
  }
  graph_builder(model.architecture)(builder);
  return builder;
}

/// Throws what the graph of all layers would.
void refuse_unknown_layers(const ModelSpec& model, const GraphSettings& settings) {
  GraphSettings anywhere = settings;
  anywhere.places = {};
  static_cast<void>(build(one_layer_of_each_kind(model), anywhere, reserved_tokens(settings)));
}

/// Cells below which a sparse index chooses all of them; 0: the model has none.
std::int64_t sparse_cells(const ModelSpec& model) {
  for (const LayerSpec& layer : model.layers) {
    const auto* m = std::get_if<LatentAttention>(&layer.mixer);
    if (m != nullptr && m->indexer) {
      return m->indexer->top_k;
    }
  }
  return 0;
}

}  // namespace

namespace detail {

struct CompiledPass {
  Machine machine;
  std::vector<Event> events;
  std::vector<PassProgram> programs;  ///< by backend

  CompiledPass(Builder builder, const Machine& on, PassProgram::Boundaries boundaries)
      : machine(on) {
    const Schedule order = schedule(builder.graph, machine);
    events = lifetimes(builder.graph, order, machine);
    for (std::size_t b = 0; b < machine.n_backends(); ++b) {
      const auto backend = static_cast<BackendId>(b);
      programs.emplace_back(events, backend, alignment(backend), boundaries);
    }
  }

  [[nodiscard]] std::int64_t alignment(BackendId backend) const {
    return backend == machine.host() ? kHostAlignment : kCudaAlignment;
  }
};

}  // namespace detail

std::int64_t reserved_tokens(const GraphSettings& settings) {
  const std::int64_t n_ctx =
      settings.kv_unified ? settings.n_ctx_seq : settings.n_ctx_seq * settings.n_seq_max;
  const std::int64_t tokens = std::min(n_ctx, settings.n_ubatch);
  return round_up(tokens, settings.n_seq_max);
}

ComputePlan::ComputePlan(const ModelSpec& model, GraphSettings settings, Layers layers)
    : model_(model),
      settings_(std::move(settings)),
      layers_(layers),
      sparse_cells_(sparse_cells(model)) {
  // rows of logits are clipped before the tokens are rounded up to whole sequences
  GraphSettings& s = settings_;
  const std::int64_t n_ctx = s.kv_unified ? s.n_ctx_seq : s.n_ctx_seq * s.n_seq_max;
  s.n_outputs = std::min({n_ctx, s.n_ubatch, s.n_outputs == 0 ? s.n_batch : s.n_outputs});
  refuse_unknown_layers(model, settings_);
}

ComputePlan::ComputePlan(ComputePlan&&) noexcept = default;
ComputePlan& ComputePlan::operator=(ComputePlan&&) noexcept = default;
ComputePlan::~ComputePlan() = default;

const detail::CompiledPass& ComputePlan::pass(const CacheCells& cells) const {
  const bool is_short = cells.full < sparse_cells_;
  std::unique_ptr<detail::CompiledPass>& of_cells = is_short ? short_pass_ : pass_;
  if (of_cells == nullptr) {
    // equal layers on different devices are not equal to the allocators
    const bool folds = layers_ == Layers::folded && settings_.places.devices.empty();
    const FoldedModel folded = folds ? fold_layers(model_) : FoldedModel{model_};
    of_cells = std::make_unique<detail::CompiledPass>(
        build(folded.model,
              settings_,
              reserved_tokens(settings_),
              is_short ? sparse_cells_ - 1 : INT64_MAX),
        machine_of(settings_),
        PassProgram::Boundaries{folded.second_boundary, folded.third_boundary});
  }
  return *of_cells;
}

ComputeBytes ComputePlan::bytes(const CacheCells& cells) const {
  const detail::CompiledPass& p = pass(cells);
  const PassProgram::Result host = p.programs.back().run(cells);
  const PassProgram::Result device =
      p.machine.n_gpus > 0 ? p.programs.front().run(cells) : PassProgram::Result{};
  if (!host.settled || !device.settled) {
    if (whole_ == nullptr) {
      whole_ = std::make_unique<ComputePlan>(model_, settings_, Layers::all);
    }
    return whole_->bytes(cells);
  }
  ComputeBytes result{device.bytes, host.bytes, {}};
  for (int gpu = 1; gpu < p.machine.n_gpus; ++gpu) {
    result.more_device_bytes.push_back(p.programs[static_cast<std::size_t>(gpu)].run(cells).bytes);
  }
  return result;
}

ComputeBytes ComputePlan::bytes_by_full_replay(const CacheCells& cells) const {
  const ComputePlan whole(model_, settings_, Layers::all);
  const detail::CompiledPass& p = whole.pass(cells);
  const BackendId host = p.machine.host();
  ComputeBytes result;
  result.host_bytes = replay(p.events, host, p.alignment(host), cells);
  if (p.machine.n_gpus > 0) {
    result.device_bytes = replay(p.events, 0, kCudaAlignment, cells);
  }
  for (int gpu = 1; gpu < p.machine.n_gpus; ++gpu) {
    result.more_device_bytes.push_back(
        replay(p.events, static_cast<BackendId>(gpu), kCudaAlignment, cells));
  }
  return result;
}

bool resolve_flash_attention(const ModelSpec& model, const GraphSettings& settings) {
  if (settings.backend == Backend::cpu || is_quantized(settings.type_v)) {
    return true;
  }
  GraphSettings probe = settings;
  probe.flash_attention = true;
  probe.v_transposed = false;
  probe.n_outputs = settings.n_seq_max;
  probe.places = {};  // a pass of single tokens stays where its layers are
  const ModelSpec kinds = one_layer_of_each_kind(model);
  const Builder builder = build(kinds, probe, settings.n_seq_max);
  const TensorGraph& graph = builder.graph;
  return std::all_of(graph.nodes().begin(), graph.nodes().end(), [&](TensorId t) {
    return graph[t].op != Op::flash_attention || cuda_supports(graph, t);
  });
}

std::int64_t output_bytes(const ModelSpec& model, std::int64_t n_seq_max) {
  return model.vocab_size * n_seq_max * info(DType::f32).block_bytes;
}

}  // namespace kvfathom::llama_cpp
