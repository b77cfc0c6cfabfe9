#include "model/engine/ideal.h"

#include <algorithm>

#include "model/cache/groups.h"
#include "model/error.h"

namespace kvfathom {
namespace {

constexpr std::size_t kMostLines = 6;

constexpr std::int64_t kStateElementBytes = 4;  // recurrences accumulate in f32
constexpr std::int64_t kConvElementBytes = 2;   // activations, in the model's 16-bit type

/// Bytes of one token's row, rounded up to whole blocks of a quantised type.
std::int64_t cache_row_bytes(DType type, std::int64_t n_elements) {
  const std::int64_t block = info(type).block_elements;
  return row_bytes(type, (n_elements + block - 1) / block * block);
}

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

class IdealPlan final : public MemoryPlan {
 public:
  IdealPlan(const ModelSpec& model, const EngineSettings& settings)
      : sequences_(settings.sequences),
        context_is_total_(settings.context_is_total),
        device_{settings.n_gpus == 0 ? Device::kHost : 0},
        offload_(settings.offload) {
    std::int64_t weights_bytes = 0;
    for (const Tensor& tensor : model.tensors) {
      weights_bytes += data_bytes(tensor);
    }
    weights_ = weights_line(device_, weights_bytes, settings);
    std::int64_t extra_elements = 0;
    const cache::SchemeRequest requested{settings.scheme, settings.scheme_parameters};
    for (const cache::LayerGroup& group : cache::layer_groups(model, requested)) {
      groups_.push_back(priced(group, settings));
      extra_elements += group.n_layers * group.layout.extra_weight_elements;
    }
    extra_weights_bytes_ = extra_elements * kRowElementBytes;
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

  [[nodiscard]] std::string command(std::int64_t /*context_tokens*/,
                                    std::string_view /*model*/) const override {
    return {};
  }

 private:
  [[nodiscard]] MemoryReport priced_at(std::int64_t context_tokens, bool at_least) const {
    const std::int64_t tokens =
        context_is_total_ ? std::max<std::int64_t>(1, context_tokens / sequences_) : context_tokens;
    MemoryReport report;
    report.context_tokens = tokens;
    report.cache.groups.reserve(groups_.size());
    std::int64_t away_bytes = 0;
    for (const PricedGroup& group : groups_) {
      const CacheGroup out = add_group(group, tokens, at_least, report.cache);
      away_bytes += offload_ ? offload_->away(out.k_bytes) + offload_->away(out.v_bytes) : 0;
    }
    const std::int64_t kv_bytes = report.cache.k_bytes + report.cache.v_bytes;
    const std::int64_t compute_bytes =
        std::max(prompt_bytes(tokens), rebuilt_bytes(tokens)) + staging_bytes(tokens);
    report.cache.prefill_peak_bytes = report.cache.bytes() + compute_bytes;
    report.ledger.lines.reserve(kMostLines);
    report.ledger.lines.push_back(weights_);
    add_line(report.ledger, device_, LedgerKind::cache, kv_bytes - away_bytes);
    add_line(report.ledger, device_, LedgerKind::state, report.cache.state_bytes);
    add_line(report.ledger, device_, LedgerKind::extra_weights, extra_weights_bytes_);
    add_line(report.ledger, device_, LedgerKind::compute, compute_bytes);
    if (offload_ && offload_->tier == cache::Offload::kHost) {
      add_line(report.ledger, Device{Device::kHost}, LedgerKind::cache, away_bytes);
    }
    return report;
  }

  static PricedGroup priced(const cache::LayerGroup& group, const EngineSettings& settings) {
    const cache::CacheLayout& layout = group.layout;
    return {
        .scheme = cache::name(group.scheme),
        .n_layers = group.n_layers,
        .k = {.row_bytes = cache_row_bytes(settings.cache_type_k, layout.k_row_elements),
              .packed_bits = layout.k_packed_bits,
              .exact_row_bytes = layout.exact_k_elements * kRowElementBytes,
              .exact_tokens = layout.exact_tokens,
              .flush_tokens = layout.k_flush_tokens},
        .v = {.row_bytes = cache_row_bytes(settings.cache_type_v, layout.v_row_elements),
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

  CacheGroup add_group(const PricedGroup& group,
                       std::int64_t tokens,
                       bool at_least,
                       CacheReport& cache) const {
    const std::int64_t cells = capped(tokens, group.token_cap);
    CacheGroup out{.scheme = group.scheme, .n_layers = group.n_layers, .streams = sequences_};
    const std::int64_t copies = group.n_layers * sequences_;
    out.k_bytes = copies * group.k.bytes(cells, at_least);
    out.v_bytes = copies * group.v.bytes(cells, at_least);
    out.state_bytes = group.state_bytes_per_sequence * sequences_;
    out.cells = out.k_bytes + out.v_bytes > 0 ? cells : 0;
    cache.k_bytes += out.k_bytes;
    cache.v_bytes += out.v_bytes;
    cache.state_bytes += out.state_bytes;
    const bool is_full = group.token_cap != 0 && tokens >= group.token_cap;
    const std::int64_t per_token = is_full ? 0
                                           : group.k.bytes_per_token(cells, group.n_layers) +
                                                 group.v.bytes_per_token(cells, group.n_layers);
    cache.bytes_per_token += per_token;
    cache.fixed_bytes_per_sequence +=
        group.state_bytes_per_sequence +
        std::max<std::int64_t>(0, (out.k_bytes + out.v_bytes) / sequences_ - per_token * cells);
    cache.groups.push_back(out);
    return out;
  }

  /// What the prompt of one sequence holds beyond the steady state of all.
  [[nodiscard]] std::int64_t prompt_bytes(std::int64_t tokens) const {
    std::int64_t all_layers = 0;
    std::int64_t one_layer = 0;
    for (const PricedGroup& group : groups_) {
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
  [[nodiscard]] std::int64_t rebuilt_bytes(std::int64_t tokens) const {
    std::int64_t bytes = 0;
    for (const PricedGroup& group : groups_) {
      bytes = std::max(bytes, group.rebuilt_row_bytes * capped(tokens, group.token_cap));
    }
    return bytes;
  }

  /// Two buffers through which a slower tier is read.
  [[nodiscard]] std::int64_t staging_bytes(std::int64_t tokens) const {
    std::int64_t bytes = 0;
    if (offload_ && offload_->kept < cache::kWhole) {
      for (const PricedGroup& group : groups_) {
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

  std::int64_t sequences_;
  bool context_is_total_;
  Device device_;
  LedgerLine weights_;
  std::optional<cache::Offload> offload_;
  std::int64_t extra_weights_bytes_ = 0;
  std::vector<PricedGroup> groups_;
};

}  // namespace

std::unique_ptr<MemoryPlan> prepare_ideal(const ModelSpec& model, const EngineSettings& settings) {
  if (model.tensors.empty()) {
    throw InputError(model.name, "no weight tensors are known", "give --weights");
  }
  if (settings.n_gpus > 1) {
    throw InputError(
        "--gpus",
        std::to_string(settings.n_gpus) + " devices are more than the ideal engine models",
        "use 0 or 1");
  }
  if (settings.n_gpus == 0 && settings.offload) {
    throw InputError("--scheme", "offload with --gpus 0", "everything is on the host already");
  }
  cache::require_applicable(model, {settings.scheme, settings.scheme_parameters});
  return std::make_unique<IdealPlan>(model, settings);
}

}  // namespace kvfathom
