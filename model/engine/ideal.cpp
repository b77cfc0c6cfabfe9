#include "model/engine/ideal.h"

#include <algorithm>
#include <span>

#include "model/cache/groups.h"
#include "model/engine/ideal_stages.h"
#include "model/error.h"

namespace kvfathom {
namespace {

constexpr std::size_t kMostLines = 6;  // of a device

constexpr std::int64_t kStateElementBytes = 4;  // recurrences accumulate in f32
constexpr std::int64_t kConvElementBytes = 2;   // activations, in the model's 16-bit type

constexpr std::int64_t kRowElementBytes = 2;  // K, V, X and projectors that stay in 16 bits

/// K or V of one layer, as one sequence stores it.
struct Rows {
  std::int64_t row_bytes = 0;        ///< per token, in the cache's element type
  std::int64_t packed_bits = 0;      ///< per token, in the scheme's own format
  std::int64_t exact_row_bytes = 0;  ///< per token that stays in 16 bits, in place of the above
  std::int64_t exact_tokens = 0;
  std::int64_t flush_tokens = 0;

  [[nodiscard]] std::int64_t bytes(std::int64_t tokens, bool at_least) const {
    std::int64_t exact = std::min(tokens, exact_tokens);
    if (flush_tokens > 0) {
      exact = at_least ? 0 : tokens % flush_tokens;
    }
    const std::int64_t packed = tokens - exact;
    return exact * exact_row_bytes + packed * row_bytes + (packed * packed_bits + 7) / 8;
  }
  /// What one more token adds in the long run, of `n` layers.
  [[nodiscard]] std::int64_t bytes_per_token(std::int64_t tokens, std::int64_t n) const {
    return flush_tokens == 0 && tokens < exact_tokens ? n * exact_row_bytes
                                                      : n * row_bytes + (n * packed_bits + 7) / 8;
  }
};

/// One layer group with its bytes worked out.
struct PricedGroup {
  std::size_t index = 0;  ///< among the groups of the whole model
  std::string_view scheme;
  std::int64_t n_layers = 0;
  Rows k;
  Rows v;
  std::int64_t token_cap = 0;         ///< 0: none
  std::int64_t prompt_token_cap = 0;  ///< before eviction; 0: none
  cache::Prefill prefill = cache::Prefill::streamed;
  std::int64_t rebuilt_row_bytes = 0;  ///< scratch of one layer and sequence, per token
  std::int64_t state_bytes_per_sequence = 0;

  [[nodiscard]] std::int64_t layer_bytes(std::int64_t tokens) const {
    return k.bytes(tokens, false) + v.bytes(tokens, false);
  }
};

std::int64_t capped(std::int64_t tokens, std::int64_t cap) {
  return cap == 0 ? tokens : std::min(tokens, cap);
}

/// Devices that hold the same: one, or the ranks that share its heads.
struct Stage {
  std::vector<Device> devices;
  std::int64_t n_layers = 0;
  std::int64_t weights_bytes = 0;
  std::int64_t extra_weights_bytes = 0;
  std::vector<PricedGroup> groups;
};

/// What one device of a stage holds of one group, or of all.
struct Held {
  std::int64_t kv_bytes = 0;
  std::int64_t away_bytes = 0;
  std::int64_t state_bytes = 0;
};

class IdealPlan final : public MemoryPlan {
 public:
  IdealPlan(const ModelSpec& model, const EngineSettings& settings)
      : settings_(settings),
        sequences_(settings.sequences),
        offload_(settings.offload),
        tensor_parallel_(settings.tensor_parallel) {
    const serving::Parallel parallel = ideal_parallel(model, settings);
    const std::vector<serving::StageRank> ranks =
        serving::stage_ranks(model, settings, parallel, {.as_stored = true});
    ModelSpec rank_model = ranks.front().model;
    for (std::size_t i = 1; i < ranks.size(); ++i) {
      const std::vector<LayerSpec>& layers = ranks[i].model.layers;
      rank_model.layers.insert(rank_model.layers.end(), layers.begin(), layers.end());
    }
    const cache::SchemeRequest requested{settings.scheme, settings.scheme_parameters};
    cache::require_applicable(rank_model, requested);
    // Of the whole model: some schemes ask where among all layers one stands.
    const auto schemes = cache::layer_schemes(rank_model, requested);
    const std::vector<cache::LayerGroup> groups = cache::layer_groups(schemes);
    n_groups_ = groups.size();
    auto layer = schemes.begin();
    int device = settings.n_gpus == 0 ? Device::kHost : 0;
    for (const serving::StageRank& rank : ranks) {
      const std::size_t n = rank.model.layers.size();
      stages_.push_back(stage({layer, n}, groups, rank.weights_bytes, settings));
      layer += static_cast<std::ptrdiff_t>(n);
      for (std::int64_t i = 0; i < parallel.tensor; ++i) {
        stages_.back().devices.push_back({device++});
      }
    }
  }

  [[nodiscard]] MemoryReport evaluate(std::int64_t context_tokens) const override {
    return priced_at(context_tokens, false);
  }

  /// Blocks that shrink when they are full (KIVI) count as full here: all else only grows.
  [[nodiscard]] std::int64_t floor_bytes(Device device,
                                         std::int64_t context_tokens) const override {
    return priced_at(context_tokens, true).ledger.total(device).high_bytes;
  }

  [[nodiscard]] std::int64_t next_smaller(std::int64_t context_tokens) const override {
    return context_tokens - 1;
  }

  [[nodiscard]] std::optional<Placement> placement() const override {
    if (stages_.size() == 1 || tensor_parallel_ > 1) {
      return std::nullopt;
    }
    Placement placement;
    for (const Stage& stage : stages_) {
      placement.layers.emplace_back(stage.devices.front(), stage.n_layers);
    }
    ++placement.layers.back().second;  // the output head
    return placement;
  }

  [[nodiscard]] std::string command(std::int64_t /*context_tokens*/,
                                    std::string_view /*model*/) const override {
    return {};
  }

 private:
  static Stage stage(std::span<const std::vector<cache::Scheme>> layers,
                     const std::vector<cache::LayerGroup>& of_model,
                     std::int64_t weights_bytes,
                     const EngineSettings& settings) {
    Stage stage{.devices = {},
                .n_layers = static_cast<std::int64_t>(layers.size()),
                .weights_bytes = weights_bytes,
                .groups = {}};
    for (const cache::LayerGroup& group : cache::layer_groups(layers)) {
      stage.groups.push_back(priced(group, settings));
      const auto same = std::ranges::find(of_model, group.scheme, &cache::LayerGroup::scheme);
      stage.groups.back().index = static_cast<std::size_t>(same - of_model.begin());
      stage.extra_weights_bytes +=
          group.n_layers * group.layout.extra_weight_elements * kRowElementBytes;
    }
    return stage;
  }

  [[nodiscard]] MemoryReport priced_at(std::int64_t context_tokens, bool at_least) const {
    const std::int64_t tokens = settings_.context_is_total
                                    ? std::max<std::int64_t>(1, context_tokens / sequences_)
                                    : context_tokens;
    MemoryReport report;
    report.context_tokens = tokens;
    report.cache.groups.resize(n_groups_);
    report.ledger.lines.reserve(kMostLines * stages_.size() *
                                static_cast<std::size_t>(tensor_parallel_));
    std::int64_t away_bytes = 0;
    for (const Stage& stage : stages_) {
      away_bytes += add_stage(stage, tokens, at_least, report);
    }
    report.cache.prefill_peak_bytes =
        report.cache.bytes() + report.ledger.bytes_of(LedgerKind::compute);
    if (offload_) {
      report.cache.offloaded = {.tier = offload_->tier_name(),
                                .bytes = away_bytes,
                                .bytes_per_token = offload_->away(report.cache.bytes_per_token)};
    }
    if (offload_ && offload_->tier == cache::Offload::kHost) {
      add_line(report.ledger, Device{Device::kHost}, LedgerKind::cache, away_bytes);
    }
    return report;
  }

  /// The lines of all devices of a stage; returns what of their K and V is elsewhere.
  std::int64_t add_stage(const Stage& stage,
                         std::int64_t tokens,
                         bool at_least,
                         MemoryReport& report) const {
    Held held;
    for (const PricedGroup& group : stage.groups) {
      const Held of_group = add_group(group, tokens, at_least, report.cache);
      held.kv_bytes += of_group.kv_bytes;
      held.away_bytes += of_group.away_bytes;
      held.state_bytes += of_group.state_bytes;
    }
    const std::int64_t compute_bytes =
        std::max(prompt_bytes(stage, tokens), rebuilt_bytes(stage, tokens)) +
        staging_bytes(stage, tokens);
    MemoryLedger& ledger = report.ledger;
    for (const Device device : stage.devices) {
      ledger.lines.push_back(weights_line(device, stage.weights_bytes, settings_));
      add_line(ledger, device, LedgerKind::cache, held.kv_bytes - held.away_bytes);
      add_line(ledger, device, LedgerKind::state, held.state_bytes);
      add_line(ledger, device, LedgerKind::extra_weights, stage.extra_weights_bytes);
      add_line(ledger, device, LedgerKind::compute, compute_bytes);
    }
    return held.away_bytes * tensor_parallel_;
  }

  static PricedGroup priced(const cache::LayerGroup& group, const EngineSettings& settings) {
    const cache::CacheLayout& layout = group.layout;
    return {
        .scheme = cache::name(group.scheme),
        .n_layers = group.n_layers,
        .k = {.row_bytes = padded_row_bytes(settings.cache_type_k, layout.k_row_elements),
              .packed_bits = layout.k_packed_bits,
              .exact_row_bytes = layout.exact_k_elements * kRowElementBytes,
              .exact_tokens = layout.exact_tokens,
              .flush_tokens = layout.k_flush_tokens},
        .v = {.row_bytes = padded_row_bytes(settings.cache_type_v, layout.v_row_elements),
              .packed_bits = layout.v_packed_bits,
              .exact_row_bytes = layout.exact_v_elements * kRowElementBytes,
              .exact_tokens = layout.exact_tokens},
        .token_cap = layout.token_cap.value_or(0),
        .prompt_token_cap = layout.prompt_token_cap.value_or(0),
        .prefill = layout.prefill,
        .rebuilt_row_bytes = layout.rebuilt_elements * kRowElementBytes,
        .state_bytes_per_sequence = group.n_layers * (layout.state_elements * kStateElementBytes +
                                                      layout.conv_elements * kConvElementBytes)};
  }

  /// Adds what all ranks hold of a group to `cache`; returns what one of them does.
  Held add_group(const PricedGroup& group,
                 std::int64_t tokens,
                 bool at_least,
                 CacheReport& cache) const {
    const std::int64_t cells = capped(tokens, group.token_cap);
    const std::int64_t copies = group.n_layers * sequences_;
    const std::int64_t k_bytes = copies * group.k.bytes(cells, at_least);
    const std::int64_t v_bytes = copies * group.v.bytes(cells, at_least);
    const Held held{.kv_bytes = k_bytes + v_bytes,
                    .away_bytes = offload_ ? offload_->away(k_bytes) + offload_->away(v_bytes) : 0,
                    .state_bytes = group.state_bytes_per_sequence * sequences_};
    const std::int64_t n = tensor_parallel_;
    CacheGroup& out = cache.groups[group.index];
    out.scheme = group.scheme;
    out.n_layers += group.n_layers;
    out.cells = held.kv_bytes > 0 ? cells : 0;
    out.streams = sequences_ * n;
    out.k_bytes += n * k_bytes;
    out.v_bytes += n * v_bytes;
    out.state_bytes += n * held.state_bytes;
    cache.k_bytes += n * k_bytes;
    cache.v_bytes += n * v_bytes;
    cache.state_bytes += n * held.state_bytes;
    const bool is_full = group.token_cap != 0 && tokens >= group.token_cap;
    const std::int64_t per_token = is_full ? 0
                                           : group.k.bytes_per_token(cells, group.n_layers) +
                                                 group.v.bytes_per_token(cells, group.n_layers);
    cache.bytes_per_token += n * per_token;
    cache.fixed_bytes_per_sequence +=
        n * (group.state_bytes_per_sequence +
             std::max<std::int64_t>(0, held.kv_bytes / sequences_ - per_token * cells));
    return held;
  }

  /// What the prompt of one sequence holds beyond the steady state of all.
  static std::int64_t prompt_bytes(const Stage& stage, std::int64_t tokens) {
    std::int64_t all_layers = 0;
    std::int64_t one_layer = 0;
    for (const PricedGroup& group : stage.groups) {
      if (group.prefill == cache::Prefill::streamed) {
        continue;
      }
      const std::int64_t beyond = group.layer_bytes(capped(tokens, group.prompt_token_cap)) -
                                  group.layer_bytes(capped(tokens, group.token_cap));
      if (group.prefill == cache::Prefill::whole) {
        all_layers += group.n_layers * beyond;
      } else {
        one_layer = std::max(one_layer, beyond);
      }
    }
    return all_layers + one_layer;
  }

  /// K and V written out while one layer of one sequence is read.
  static std::int64_t rebuilt_bytes(const Stage& stage, std::int64_t tokens) {
    std::int64_t bytes = 0;
    for (const PricedGroup& group : stage.groups) {
      bytes = std::max(bytes, group.rebuilt_row_bytes * capped(tokens, group.token_cap));
    }
    return bytes;
  }

  /// Two buffers through which a slower tier is read.
  [[nodiscard]] std::int64_t staging_bytes(const Stage& stage, std::int64_t tokens) const {
    std::int64_t bytes = 0;
    if (offload_ && offload_->kept < cache::kWhole) {
      for (const PricedGroup& group : stage.groups) {
        const std::int64_t chunk = std::min(capped(tokens, group.token_cap), offload_->chunk);
        bytes = std::max(bytes, 2 * (group.k.bytes(chunk, true) + group.v.bytes(chunk, true)));
      }
    }
    return bytes;
  }

  static void add_line(MemoryLedger& ledger, Device device, LedgerKind kind, std::int64_t bytes) {
    if (bytes != 0) {
      ledger.lines.push_back(exact_line(device, kind, bytes));
    }
  }

  EngineSettings settings_;
  std::int64_t sequences_;
  std::optional<cache::Offload> offload_;
  std::int64_t tensor_parallel_;  ///< devices of each stage
  std::size_t n_groups_ = 0;      ///< of the whole model; a stage may lack some
  std::vector<Stage> stages_;
};

}  // namespace

std::unique_ptr<MemoryPlan> prepare_ideal(const ModelSpec& model, const EngineSettings& settings) {
  if (model.tensors.empty()) {
    throw InputError(model.name, "no weight tensors are known", "give --weights");
  }
  if (settings.n_gpus == 0 && settings.offload) {
    throw InputError("--scheme", "offload with --gpus 0", "everything is on the host already");
  }
  return std::make_unique<IdealPlan>(model, settings);
}

}  // namespace kvfathom
