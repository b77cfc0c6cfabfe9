#include "model/engine/llama_cpp/policy.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "model/cache/applicability.h"
#include "model/cache/scheme.h"
#include "model/engine/llama_cpp/cells.h"
#include "model/engine/llama_cpp/compute.h"
#include "model/engine/llama_cpp/device_cache.h"
#include "model/engine/llama_cpp/engine_view.h"
#include "model/engine/llama_cpp/placement.h"
#include "model/engine/llama_cpp/weights.h"
#include "model/error.h"
#include "model/rounding.h"

namespace kvfathom {
namespace {

using llama_cpp::Backend;
using llama_cpp::Behaviours;
using llama_cpp::Cells;
using llama_cpp::CellSettings;

constexpr std::int64_t kDefaultBatch = 2048;  // common/common.h, n_batch and n_ubatch
constexpr std::int64_t kDefaultUbatch = 512;
constexpr std::int64_t kMiB = std::int64_t{1} << 20;

/// What a process takes on a CUDA device beyond llama.cpp's own buffers: the context and the
/// libraries' workspaces. 153 MiB were logged on an 8 GB card; no rule is known, so the interval
/// is wide.
LedgerLine cuda_runtime(Device device) {
  return {device, LedgerKind::runtime, 153 * kMiB, Provenance::modelled, 100 * kMiB, 400 * kMiB};
}

/// The interval of a compute buffer in percent of it; none where it is exact.
using ComputeInterval = std::optional<std::pair<std::int64_t, std::int64_t>>;

/// Exact for the builds whose rules are emulated, and for the placements that such a build was seen
/// to plan: one GPU, one with the host, two equal ones. Others follow from the same rules, which
/// nothing has shown yet. Older builds are off by what changed since: f32 masks beside f16 ones,
/// which at most double a buffer.
ComputeInterval compute_interval(const EngineSettings& settings, const CellSettings& cells) {
  constexpr std::int64_t kFewTokens = 32;  // below, operations of host layers stay on the host
  if (!cells.behaviours.checked_compute) {
    return std::pair{90, 200};
  }
  const std::int64_t tokens = cells.ubatch_tokens == 0
                                  ? cells.batch_tokens
                                  : std::min(cells.ubatch_tokens, cells.batch_tokens);
  const bool is_seen = settings.cpu_moe_layers == 0 && settings.moved_layers.empty() &&
                       settings.n_gpus <= 2 && settings.gpu_memory_bytes.empty() &&
                       settings.layers_per_gpu.empty() &&
                       !(settings.n_gpus == 2 && settings.gpu_layers) &&
                       (!llama_cpp::is_spread(settings) || tokens >= kFewTokens);
  return is_seen ? ComputeInterval() : std::pair{90, 110};
}

LedgerLine compute_line(Device device, std::int64_t bytes, const ComputeInterval& interval) {
  LedgerLine line = exact_line(device, LedgerKind::compute, bytes);
  if (interval) {
    line.provenance = Provenance::modelled;
    line.low_bytes = bytes * interval->first / 100;
    line.high_bytes = bytes * interval->second / 100;
  }
  return line;
}

bool is_quantised(DType type) {
  return info(type).block_elements > 1;
}

bool has_latent_layers(const ModelSpec& model) {
  return std::ranges::any_of(model.layers, [](const LayerSpec& layer) {
    return std::holds_alternative<LatentAttention>(layer.mixer);
  });
}

/// The settings that llama.cpp refuses when it makes its context.
void refuse_what_the_engine_refuses(const ModelSpec& view,
                                    const EngineSettings& settings,
                                    bool flash_attention) {
  const std::string type_v(name(settings.cache_type_v));
  if (is_quantised(settings.cache_type_v) && !flash_attention) {
    throw InputError("--cache-type-v",
                     type_v + " without FlashAttention",
                     "llama.cpp quantises V only with --flash-attention on");
  }
  if (!has_latent_layers(view)) {
    return;
  }
  if (settings.cache_type_k != settings.cache_type_v) {
    throw InputError("--cache-type-v",
                     type_v + " beside " + std::string(name(settings.cache_type_k)) + " for K",
                     "V is a view of K in latent layers: give both the same type");
  }
}

/// Everything of the settings that does not change with the context, resolved.
struct Resolved {
  Behaviours behaviours;
  CacheScheme latent = CacheScheme::mla_latent;
  CellSettings cells;
  bool flash_attention = true;
  bool v_transposed = false;
  Backend backend = Backend::cuda;
  std::int64_t outputs = 0;  ///< rows of logits reserved; 0: a whole batch
};

class LlamaCppPlan final : public MemoryPlan {
 public:
  LlamaCppPlan(const ModelSpec& model, const EngineSettings& settings)
      : settings_(settings),
        resolved_(resolve(model, settings)),
        view_(llama_cpp::engine_view(model, resolved_.latent)),
        device_{settings.n_gpus == 0 ? Device::kHost : 0},
        split_(llama_cpp::split_of(settings)),
        weights_(llama_cpp::placed_weights(model, model.tensors, split_)) {
    if (llama_cpp::is_spread(settings)) {
      places_ = llama_cpp::layer_places(model, model.tensors, split_);
      view_.tensors = model.tensors;  // what moves between devices is copied at its own size
    }
    resolve_flash_attention();
    refuse_what_the_engine_refuses(view_, settings, resolved_.flash_attention);
    caches_.emplace(view_,
                    resolved_.latent,
                    settings.cache_type_k,
                    settings.cache_type_v,
                    resolved_.v_transposed,
                    device_,
                    places_);
    const Cells large = cells_at(smallest_unclipped_context());
    compute_shape_ = large;
    compute_.emplace(view_, graph_settings(large));
  }

  [[nodiscard]] MemoryReport evaluate(std::int64_t context_tokens) const override {
    const Cells cells = cells_at(context_tokens);
    const llama_cpp::ComputeBytes compute = compute_bytes(cells);
    MemoryReport report;
    report.context_tokens = settings_.context_is_total
                                ? std::max<std::int64_t>(1, context_tokens / settings_.sequences)
                                : context_tokens;
    std::vector<llama_cpp::DeviceCacheBytes> caches;
    report.cache = caches_->report(cells, resolved_.cells, caches);
    report.cache.prefill_peak_bytes =
        report.cache.bytes() + compute.device_bytes + compute.host_bytes;
    for (const std::int64_t bytes : compute.more_device_bytes) {
      report.cache.prefill_peak_bytes += bytes;
    }
    add_lines(report, caches, compute);
    return report;
  }

  [[nodiscard]] std::int64_t floor_bytes(Device device,
                                         std::int64_t context_tokens) const override {
    const std::int64_t bytes = caches_->bytes(device, cells_at(context_tokens), resolved_.cells);
    if (device.index == Device::kHost) {
      return bytes + weights_.host_bytes + output_bytes();
    }
    return bytes + gpu_weights(device.index) + cuda_runtime(device).high_bytes;
  }

  [[nodiscard]] std::int64_t next_smaller(std::int64_t context_tokens) const override {
    // Cells step by 256; passes are clipped token by token below the largest one, and older builds
    // do not pad.
    std::int64_t step_down = (context_tokens - 1) / 256 * 256;
    if (resolved_.cells.kv_unified && !settings_.context_is_total) {  // they share the cells
      step_down = (context_tokens * settings_.sequences - 1) / 256 * 256 / settings_.sequences;
    }
    const bool clipped = total_context(step_down) < largest_pass_tokens();
    return resolved_.behaviours.cells_256 && !clipped ? step_down : context_tokens - 1;
  }

  [[nodiscard]] std::optional<Placement> placement() const override {
    return llama_cpp::placement_of(places_, n_layers(view_));
  }

  [[nodiscard]] std::string command(std::int64_t context_tokens,
                                    std::string_view model) const override;

 private:
  static Resolved resolve(const ModelSpec& model, const EngineSettings& settings);
  void resolve_flash_attention();

  [[nodiscard]] std::int64_t total_context(std::int64_t context_tokens) const {
    return settings_.context_is_total ? context_tokens : context_tokens * settings_.sequences;
  }
  [[nodiscard]] Cells cells_at(std::int64_t context_tokens) const {
    return llama_cpp::cells_of(total_context(context_tokens), resolved_.cells);
  }
  /// From here on the context clips neither the batch nor the micro-batch.
  [[nodiscard]] std::int64_t smallest_unclipped_context() const {
    const std::int64_t batch = std::max(resolved_.cells.batch_tokens, settings_.sequences);
    return total_context(1) == 1 ? batch : divide_up(batch, settings_.sequences);
  }

  /// A pass is of one micro-batch. The batch around it decides windows and padding of older builds
  /// alone, and one query alone (of each sequence) chooses its kernel by the cells.
  [[nodiscard]] bool depends_on_batch() const {
    const Behaviours& builds = resolved_.behaviours;
    return !builds.window_cells_by_ubatch || !builds.cells_256 ||
           compute_shape_.n_ubatch <= settings_.sequences;
  }
  [[nodiscard]] std::int64_t largest_pass_tokens() const {
    return depends_on_batch() ? compute_shape_.n_batch : compute_shape_.n_ubatch;
  }
  [[nodiscard]] bool have_same_pass(const Cells& a, const Cells& b) const {
    return a.n_ubatch == b.n_ubatch && (a.n_batch == b.n_batch || !depends_on_batch());
  }

  [[nodiscard]] llama_cpp::GraphSettings graph_settings(const Cells& cells) const;
  [[nodiscard]] llama_cpp::ComputeBytes compute_bytes(const Cells& cells) const;
  [[nodiscard]] std::int64_t output_bytes() const {
    return llama_cpp::output_bytes(view_, settings_.sequences);
  }
  [[nodiscard]] std::int64_t gpu_weights(int gpu) const {
    return weights_.gpu_bytes.at(static_cast<std::size_t>(gpu));
  }
  void add_lines(MemoryReport& report,
                 const std::vector<llama_cpp::DeviceCacheBytes>& caches,
                 const llama_cpp::ComputeBytes& compute) const;

  EngineSettings settings_;
  Resolved resolved_;
  ModelSpec view_;
  Device device_;
  llama_cpp::LayerSplit split_;
  llama_cpp::PlacedWeights weights_;
  llama_cpp::LayerPlaces places_;  ///< no devices: all layers on device_
  std::optional<llama_cpp::DeviceCaches> caches_;
  Cells compute_shape_;  ///< what compute_ was built for
  std::optional<llama_cpp::ComputePlan> compute_;
  mutable Cells clipped_shape_;  ///< of the last context that was less than a pass
  mutable std::optional<llama_cpp::ComputePlan> clipped_;
};

Resolved LlamaCppPlan::resolve(const ModelSpec& /*model*/, const EngineSettings& settings) {
  Resolved r;
  r.behaviours = llama_cpp::behaviours_without(settings.missing_behaviours);
  r.latent = llama_cpp::latent_scheme(settings.scheme, r.behaviours);
  r.backend = settings.n_gpus == 0 ? Backend::cpu : Backend::cuda;
  r.cells.sequences = settings.sequences;
  r.cells.batch_tokens = settings.batch_tokens.value_or(kDefaultBatch);
  r.cells.ubatch_tokens = settings.ubatch_tokens.value_or(kDefaultUbatch);
  r.cells.kv_unified = settings.kv_unified.value_or(false);
  const bool full = settings.scheme == CacheScheme::full;
  if (full && !settings.swa_full.value_or(true)) {
    throw InputError("--swa-full", "off, given together with --scheme full", "give one of them");
  }
  r.cells.swa_full = settings.swa_full.value_or(full);
  r.cells.behaviours = r.behaviours;
  r.outputs = settings.outputs.value_or(r.behaviours.outputs_per_sequence ? settings.sequences : 0);
  return r;
}

void LlamaCppPlan::resolve_flash_attention() {
  const bool automatic = settings_.flash_attention == FlashAttention::automatic;
  resolved_.flash_attention = settings_.flash_attention == FlashAttention::on;
  if (automatic && resolved_.behaviours.flash_attention_auto) {
    resolved_.cells.flash_attention = true;
    resolved_.flash_attention = llama_cpp::resolve_flash_attention(
        view_, graph_settings(cells_at(smallest_unclipped_context())));
    resolved_.v_transposed = false;  // the cache was laid out before the probe gave up
  } else {
    resolved_.v_transposed = !resolved_.flash_attention;
  }
  resolved_.cells.flash_attention = resolved_.flash_attention;
}

llama_cpp::GraphSettings LlamaCppPlan::graph_settings(const Cells& cells) const {
  return {.backend = resolved_.backend,
          .n_ctx_seq = cells.n_ctx_seq,
          .n_seq_max = settings_.sequences,
          .n_batch = cells.n_batch,
          .n_ubatch = cells.n_ubatch,
          .n_outputs = resolved_.outputs,
          .flash_attention = resolved_.flash_attention,
          .v_transposed = resolved_.v_transposed,
          .kv_unified = cells.streams == 1 && settings_.sequences > 1,
          .type_k = settings_.cache_type_k,
          .type_v = settings_.cache_type_v,
          .latent = resolved_.latent,
          .places = places_};
}

llama_cpp::ComputeBytes LlamaCppPlan::compute_bytes(const Cells& cells) const {
  const std::int64_t window = caches_->window_tokens();
  const llama_cpp::CacheCells cache{
      cells.n_ctx_seq, window == 0 ? 0 : llama_cpp::window_cells(cells, resolved_.cells, window)};
  if (have_same_pass(cells, compute_shape_)) {
    return compute_->bytes(cache);
  }
  if (!clipped_ || !have_same_pass(cells, clipped_shape_)) {
    clipped_.emplace(view_, graph_settings(cells));
    clipped_shape_ = cells;
  }
  return clipped_->bytes(cache);
}

void LlamaCppPlan::add_lines(MemoryReport& report,
                             const std::vector<llama_cpp::DeviceCacheBytes>& caches,
                             const llama_cpp::ComputeBytes& compute) const {
  auto& lines = report.ledger.lines;
  lines.reserve(4 + 5 * weights_.gpu_bytes.size() + 1);
  const auto add = [&](Device device, LedgerKind kind, std::int64_t bytes) {
    if (bytes != 0) {
      lines.push_back(exact_line(device, kind, bytes));
    }
  };
  const ComputeInterval interval = compute_interval(settings_, resolved_.cells);
  const auto add_model = [&](Device device, std::int64_t weights, std::int64_t compute_bytes) {
    if (weights != 0) {
      lines.push_back(weights_line(device, weights, settings_));
    }
    for (const llama_cpp::DeviceCacheBytes& cache : caches) {
      if (cache.device == device) {
        add(device, LedgerKind::cache, cache.kv_bytes);
        add(device, LedgerKind::state, cache.state_bytes);
      }
    }
    if (compute_bytes != 0) {
      lines.push_back(compute_line(device, compute_bytes, interval));
    }
  };
  for (int gpu = 0; gpu < settings_.n_gpus; ++gpu) {
    const Device device{gpu};
    add_model(device,
              gpu_weights(gpu),
              gpu == 0 ? compute.device_bytes
                       : compute.more_device_bytes[static_cast<std::size_t>(gpu) - 1]);
    lines.push_back(cuda_runtime(device));
  }
  const Device host{Device::kHost};
  add_model(host, weights_.host_bytes, compute.host_bytes);
  add(host, LedgerKind::output, output_bytes());
}

std::string LlamaCppPlan::command(std::int64_t context_tokens, std::string_view model) const {
  const bool other_layout =
      resolved_.latent != llama_cpp::latent_scheme(CacheScheme::native, resolved_.behaviours);
  const bool other_outputs = settings_.outputs && *settings_.outputs != settings_.sequences;
  if (other_layout || other_outputs) {
    return {};  // llama-server has no switch for either
  }
  std::string text = "llama-server -m " + std::string(model) + " -c " +
                     std::to_string(total_context(context_tokens)) + " -np " +
                     std::to_string(settings_.sequences);
  text += llama_cpp::placement_options(settings_, n_layers(view_));
  const auto add_if = [&](bool wanted, const std::string& option) {
    text += wanted ? " " + option : "";
  };
  add_if(resolved_.cells.kv_unified, "--kv-unified");
  add_if(resolved_.cells.swa_full, "--swa-full");
  add_if(settings_.flash_attention != FlashAttention::automatic,
         std::string("-fa ") + (resolved_.flash_attention ? "on" : "off"));
  add_if(settings_.cache_type_k != DType::f16, "-ctk " + std::string(name(settings_.cache_type_k)));
  add_if(settings_.cache_type_v != DType::f16, "-ctv " + std::string(name(settings_.cache_type_v)));
  add_if(settings_.batch_tokens.has_value(), "-b " + std::to_string(resolved_.cells.batch_tokens));
  add_if(settings_.ubatch_tokens.has_value(),
         "-ub " + std::to_string(resolved_.cells.ubatch_tokens));
  return text + " --fit off";
}

void require_positive(const char* option, std::int64_t value) {
  if (value < 1) {
    throw InputError(option, std::to_string(value) + " is not positive", "use 1 or more");
  }
}

}  // namespace

std::unique_ptr<MemoryPlan> prepare_llama_cpp(const ModelSpec& model,
                                              const EngineSettings& settings) {
  if (model.tensors.empty()) {
    throw InputError(model.name, "no weight tensors are known", "give --weights");
  }
  llama_cpp::refuse_placement(model, settings);
  require_positive("--sequences", settings.sequences);
  if (settings.sequences > llama_cpp::kMostSequences) {
    throw InputError("--sequences",
                     std::to_string(settings.sequences) + " are more than llama.cpp takes",
                     "at most " + std::to_string(llama_cpp::kMostSequences) + " in one server");
  }
  require_positive("--batch-tokens", settings.batch_tokens.value_or(1));
  cache::require_model_scheme("llama.cpp", settings);
  cache::require_applicable(model, settings.scheme);
  return std::make_unique<LlamaCppPlan>(model, settings);
}

}  // namespace kvfathom
