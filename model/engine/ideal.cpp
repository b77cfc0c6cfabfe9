#include "model/engine/ideal.h"

#include <algorithm>

#include "model/cache/groups.h"
#include "model/error.h"

namespace kvfathom {
namespace {

constexpr std::int64_t kStateElementBytes = 4;  // recurrences accumulate in f32
constexpr std::int64_t kConvElementBytes = 2;   // activations, in the model's 16-bit type

/// Bytes of one token's row, rounded up to whole blocks of a quantised type.
std::int64_t cache_row_bytes(DType type, std::int64_t n_elements) {
  const std::int64_t block = info(type).block_elements;
  return row_bytes(type, (n_elements + block - 1) / block * block);
}

/// One layer group with its bytes worked out.
struct PricedGroup {
  std::string_view scheme;
  std::int64_t n_layers = 0;
  std::int64_t k_bytes_per_token = 0;  ///< of all the group's layers
  std::int64_t v_bytes_per_token = 0;
  std::int64_t token_cap = 0;  ///< 0: none
  std::int64_t state_bytes_per_sequence = 0;
};

class IdealPlan final : public MemoryPlan {
 public:
  IdealPlan(const ModelSpec& model, const EngineSettings& settings)
      : sequences_(settings.sequences),
        context_is_total_(settings.context_is_total),
        device_{settings.n_gpus == 0 ? Device::kHost : 0} {
    std::int64_t weights_bytes = 0;
    for (const Tensor& tensor : model.tensors) {
      weights_bytes += data_bytes(tensor);
    }
    weights_ = weights_line(device_, weights_bytes, settings);
    for (const cache::LayerGroup& group : cache::layer_groups(model, settings.scheme)) {
      groups_.push_back(priced(group, settings));
    }
  }

  [[nodiscard]] MemoryReport evaluate(std::int64_t context_tokens) const override {
    const std::int64_t tokens =
        context_is_total_ ? std::max<std::int64_t>(1, context_tokens / sequences_) : context_tokens;
    MemoryReport report;
    report.context_tokens = tokens;
    report.cache.groups.reserve(groups_.size());
    for (const PricedGroup& group : groups_) {
      add_group(group, tokens, report.cache);
    }
    report.cache.prefill_peak_bytes = report.cache.bytes();
    report.ledger.lines.push_back(weights_);
    add_line(report.ledger, LedgerKind::cache, report.cache.k_bytes + report.cache.v_bytes);
    add_line(report.ledger, LedgerKind::state, report.cache.state_bytes);
    return report;
  }

  [[nodiscard]] std::int64_t floor_bytes(Device device,
                                         std::int64_t context_tokens) const override {
    return evaluate(context_tokens).ledger.total(device).high_bytes;
  }

  [[nodiscard]] std::int64_t next_smaller(std::int64_t context_tokens) const override {
    return context_tokens - 1;
  }

  [[nodiscard]] std::string command(std::int64_t /*context_tokens*/,
                                    std::string_view /*model*/) const override {
    return {};
  }

 private:
  static PricedGroup priced(const cache::LayerGroup& group, const EngineSettings& settings) {
    const cache::CacheLayout& layout = group.layout;
    return {
        .scheme = cache::name(group.scheme),
        .n_layers = group.n_layers,
        .k_bytes_per_token =
            group.n_layers * cache_row_bytes(settings.cache_type_k, layout.k_row_elements),
        .v_bytes_per_token =
            group.n_layers * cache_row_bytes(settings.cache_type_v, layout.v_row_elements),
        .token_cap = layout.token_cap.value_or(0),
        .state_bytes_per_sequence = group.n_layers * (layout.state_elements * kStateElementBytes +
                                                      layout.conv_elements * kConvElementBytes)};
  }

  void add_group(const PricedGroup& group, std::int64_t tokens, CacheReport& cache) const {
    const bool capped = group.token_cap != 0 && tokens >= group.token_cap;
    const std::int64_t cells = capped ? group.token_cap : tokens;
    CacheGroup out{.scheme = group.scheme, .n_layers = group.n_layers, .streams = sequences_};
    out.k_bytes = group.k_bytes_per_token * cells * sequences_;
    out.v_bytes = group.v_bytes_per_token * cells * sequences_;
    out.state_bytes = group.state_bytes_per_sequence * sequences_;
    out.cells = out.k_bytes + out.v_bytes > 0 ? cells : 0;
    cache.k_bytes += out.k_bytes;
    cache.v_bytes += out.v_bytes;
    cache.state_bytes += out.state_bytes;
    const std::int64_t per_token = group.k_bytes_per_token + group.v_bytes_per_token;
    cache.bytes_per_token += capped ? 0 : per_token;
    cache.fixed_bytes_per_sequence +=
        group.state_bytes_per_sequence + (capped ? per_token * cells : 0);
    cache.groups.push_back(out);
  }

  void add_line(MemoryLedger& ledger, LedgerKind kind, std::int64_t bytes) const {
    if (bytes != 0) {
      ledger.lines.push_back(exact_line(device_, kind, bytes));
    }
  }

  std::int64_t sequences_;
  bool context_is_total_;
  Device device_;
  LedgerLine weights_;
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
  cache::require_applicable(model, settings.scheme);
  return std::make_unique<IdealPlan>(model, settings);
}

}  // namespace kvfathom
