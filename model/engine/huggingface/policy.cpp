#include "model/engine/huggingface/policy.h"

#include <algorithm>
#include <string>
#include <variant>

#include "model/cache/applicability.h"
#include "model/cache/groups.h"
#include "model/engine/serving/paged_cache.h"
#include "model/engine/serving/profile.h"
#include "model/error.h"

namespace kvfathom {
namespace {

using serving::Modelled;

constexpr std::int64_t kScoreBytes = 6;   // 16-bit scores and their f32 softmax
constexpr std::int64_t kLogitBytes = 10;  // last token: 16-bit, f32 copy, f32 probabilities

/// One kind of layer, in bytes per token of one sequence.
struct GrowingGroup {
  std::string_view scheme;
  std::int64_t n_layers = 0;
  std::int64_t k_bytes = 0;
  std::int64_t v_bytes = 0;
  std::int64_t token_cap = 0;  ///< 0: none
};

/// `mla-expanded`: transformers' DeepSeek models cache the keys and values of every head.
CacheScheme cached_as(const EngineSettings& settings) {
  return settings.scheme == CacheScheme::native ? CacheScheme::mla_expanded : settings.scheme;
}

std::int64_t most_heads(const ModelSpec& model) {
  std::int64_t heads = 0;
  for (const LayerSpec& layer : model.layers) {
    if (const auto* a = std::get_if<Attention>(&layer.mixer)) {
      heads = std::max(heads, a->n_heads);
    } else if (const auto* latent = std::get_if<LatentAttention>(&layer.mixer)) {
      heads = std::max(heads, latent->n_heads);
    }
  }
  return heads;
}

class HuggingFacePlan final : public MemoryPlan {
 public:
  HuggingFacePlan(const ModelSpec& model, const EngineSettings& settings)
      : sequences_(settings.sequences),
        context_is_total_(settings.context_is_total),
        n_heads_(settings.flash_attention == FlashAttention::off ? most_heads(model) : 0) {
    const serving::Parallel parallel = serving::parallel_of(settings);
    rank_ = serving::stage_ranks(model, settings, parallel).front();
    weights_ = weights_line(Device{0}, rank_.weights_bytes, settings);
    for (const cache::LayerGroup& group : cache::layer_groups(model, cached_as(settings))) {
      const cache::CacheLayout& layout = group.layout;
      if (layout.state_elements + layout.conv_elements > 0) {
        throw Unsupported(model.name, "huggingface: no rule for its recurrent states", "");
      }
      groups_.push_back({.scheme = cache::name(group.scheme),
                         .n_layers = group.n_layers,
                         .k_bytes = row_bytes(settings.cache_type_k, layout.k_row_elements),
                         .v_bytes = row_bytes(settings.cache_type_v, layout.v_row_elements),
                         .token_cap = layout.token_cap.value_or(0)});
    }
  }

  [[nodiscard]] MemoryReport evaluate(std::int64_t context_tokens) const override {
    MemoryReport report;
    report.context_tokens = tokens_of(context_tokens);
    for (const GrowingGroup& group : groups_) {
      add_group(group, report.context_tokens, report.cache);
    }
    const Device device{0};
    auto& lines = report.ledger.lines;
    lines.push_back(weights_);
    lines.push_back(exact_line(device, LedgerKind::cache, report.cache.bytes()));
    lines.push_back(modelled_line(device, LedgerKind::compute, compute(report.context_tokens)));
    lines.push_back(
        modelled_line(device, LedgerKind::runtime, serving::runtime_memory(serving::Parallel{})));
    report.cache.prefill_peak_bytes = report.cache.bytes() + lines[2].bytes;
    return report;
  }

  [[nodiscard]] std::int64_t floor_bytes(Device device,
                                         std::int64_t context_tokens) const override {
    return device.index == 0 ? evaluate(context_tokens).ledger.total(device).high_bytes : 0;
  }

  [[nodiscard]] std::int64_t next_smaller(std::int64_t context_tokens) const override {
    return context_tokens - 1;
  }

  [[nodiscard]] std::string command(std::int64_t /*context_tokens*/,
                                    std::string_view /*model*/) const override {
    return {};
  }

 private:
  [[nodiscard]] std::int64_t tokens_of(std::int64_t context_tokens) const {
    return context_is_total_ ? std::max<std::int64_t>(1, context_tokens / sequences_)
                             : context_tokens;
  }

  void add_group(const GrowingGroup& group, std::int64_t tokens, CacheReport& cache) const {
    const bool capped = group.token_cap > 0 && tokens >= group.token_cap;
    const std::int64_t cells = capped ? group.token_cap : tokens;
    const std::int64_t rows = cells * group.n_layers * sequences_;
    CacheGroup out{.scheme = group.scheme,
                   .n_layers = group.n_layers,
                   .cells = cells,
                   .streams = sequences_,
                   .k_bytes = rows * group.k_bytes,
                   .v_bytes = rows * group.v_bytes};
    cache.k_bytes += out.k_bytes;
    cache.v_bytes += out.v_bytes;
    const std::int64_t per_token = group.n_layers * (group.k_bytes + group.v_bytes);
    cache.bytes_per_token += capped ? 0 : per_token;
    cache.fixed_bytes_per_sequence += capped ? per_token * cells : 0;
    cache.groups.push_back(out);
  }

  /// The whole prompt in one pass, with the copy that torch.cat makes of one layer's K and V, and
  /// the scores of one layer where attention is eager. The allocator keeps what it once had in
  /// pieces that need not fit again: up to half as much on top, 512 MiB at most beyond that.
  [[nodiscard]] Modelled compute(std::int64_t tokens) const {
    constexpr std::int64_t kMiB = std::int64_t{1} << 20;
    const serving::Step step{.tokens = tokens * sequences_, .sequences = 0};
    const std::int64_t layer = serving::activation_peak(rank_, serving::Parallel{}, step).bytes;
    std::int64_t widest_row = 0;
    for (const GrowingGroup& group : groups_) {
      widest_row = std::max(widest_row, group.k_bytes + group.v_bytes);
    }
    const std::int64_t concatenated = tokens * sequences_ * widest_row;
    const std::int64_t scores = sequences_ * n_heads_ * kScoreBytes * tokens * tokens;
    const std::int64_t logits = sequences_ * rank_.model.vocab_size * kLogitBytes;
    const std::int64_t peak = std::max({layer, concatenated + scores, logits});
    return {peak, peak / 2, peak + peak / 2 + 512 * kMiB};
  }

  std::int64_t sequences_;
  bool context_is_total_;
  std::int64_t n_heads_;  ///< whose scores are held; 0: attention is fused
  serving::StageRank rank_;
  LedgerLine weights_;
  std::vector<GrowingGroup> groups_;
};

}  // namespace

std::unique_ptr<MemoryPlan> prepare_huggingface(const ModelSpec& model,
                                                const EngineSettings& requested) {
  // Its native cache is not a latent: that is no other name for it here.
  const bool windows = requested.scheme == CacheScheme::window;
  const EngineSettings settings = windows ? cache::with_native_scheme(model, requested) : requested;
  if (settings.n_gpus != 1 || settings.tensor_parallel * settings.pipeline_parallel *
                                      settings.data_parallel * settings.expert_parallel !=
                                  1) {
    throw Unsupported("--gpus", "huggingface: no rule for a split is known", "use one GPU");
  }
  if (settings.scheme != CacheScheme::native && settings.scheme != CacheScheme::full) {
    throw Unsupported("--scheme",
                      "huggingface lays no cache out as " + std::string(name(settings.scheme)),
                      "use native");
  }
  cache::require_applicable(model, requested.scheme);
  if (settings.cache_type_k != DType::f16 && settings.cache_type_k != DType::bf16) {
    throw InputError(
        "--cache-type-k",
        std::string(name(settings.cache_type_k)) + " is no type of a DynamicCache here",
        "use f16 or bf16");
  }
  if (settings.cache_type_v != settings.cache_type_k) {
    throw InputError("--cache-type-v", "differs from --cache-type-k", "both are the model's type");
  }
  return std::make_unique<HuggingFacePlan>(model, settings);
}

}  // namespace kvfathom
