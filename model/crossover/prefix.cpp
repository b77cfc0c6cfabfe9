#include "model/crossover/prefix.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <variant>

#include "model/cache/groups.h"
#include "model/engine/ideal.h"
#include "model/engine/serving/paged_cache.h"

namespace kvfathom {
namespace {

/// V and predicted heads are written out, so that decode steps read K and V.
cache::SchemeRequest materialised(cache::SchemeRequest request) {
  if (auto* k_only = std::get_if<cache::KOnlyParameters>(&request.parameters)) {
    k_only->rebuild = cache::KOnlyParameters::kMaterialised;
  } else if (auto* heads = std::get_if<cache::HeadLinearParameters>(&request.parameters)) {
    heads->rebuild = cache::HeadLinearParameters::kMaterialised;
  }
  return request;
}

LatencySettings with_scheme(LatencySettings settings, const Stored& stored) {
  settings.scheme = materialised(stored.scheme);
  settings.cache_type_k = stored.cache_type_k;
  settings.cache_type_v = stored.cache_type_v;
  settings.offload.reset();
  return settings;
}

EngineSettings memory_settings(const Stored& stored) {
  EngineSettings settings;
  settings.cache_type_k = stored.cache_type_k;
  settings.cache_type_v = stored.cache_type_v;
  settings.scheme = stored.scheme.id;
  settings.scheme_parameters = stored.scheme.parameters;
  return settings;
}

/// Whether anything of it takes fewer than 16 bits a value.
bool is_packed(const Stored& stored) {
  const auto is_narrow = [](DType type) {
    return type != DType::f16 && type != DType::bf16 && type != DType::f32;
  };
  return stored.scheme.id == CacheScheme::kivi || is_narrow(stored.cache_type_k) ||
         is_narrow(stored.cache_type_v);
}

/// Rows of indexer keys and 8-bit latents beyond what their values take.
std::int64_t paged_row_bytes(const ModelSpec& model, const Stored& stored) {
  const auto groups = cache::layer_groups(model, stored.scheme);
  const bool is_sparse = std::ranges::any_of(groups, [](const cache::LayerGroup& group) {
    return std::holds_alternative<cache::SparseIndex>(group.scheme);
  });
  std::int64_t sum = 0;
  for (const cache::LayerGroup& group : groups) {
    sum += group.n_layers * (serving::k_row_bytes(group, stored.cache_type_k, is_sparse) -
                             padded_row_bytes(stored.cache_type_k, group.layout.k_row_elements));
  }
  return sum;
}

/// What a decode step under the scheme does before it attends: the same work brings a prefix back.
bool is_rebuilding(const Op& op) {
  constexpr std::array<std::string_view, 4> kParts{
      "rebuild k v", "earlier layers again", "rebuild v", "rebuild heads"};
  return std::ranges::find(kParts, op.part) != kParts.end();
}

}  // namespace

Prefix::Prefix(const ModelSpec& model,
               const LatencySettings& settings,
               const LawSource& laws,
               std::int64_t chunk_tokens)
    : model_(model),
      steps_(std::make_unique<StepOps>(model, settings)),
      generation_(*steps_, laws, chunk_tokens) {}

Estimate Prefix::recompute(std::int64_t n_tokens) {
  return generation_.prompt(n_tokens).time_s;
}

Estimate Prefix::recompute_many(std::int64_t n_tokens,
                                std::int64_t n_prefixes,
                                const Running& running) {
  return generation_.prompts(n_tokens, n_prefixes, running);
}

Estimate Prefix::recompute_beside(std::int64_t n_tokens, const Running& running) {
  return generation_.prompt_beside(n_tokens, running);
}

Estimate Prefix::step_beside(std::int64_t n_tokens,
                             std::int64_t n_cached_tokens,
                             const Running& running) {
  return generation_.step_beside(n_tokens, n_cached_tokens, running);
}

Estimate Prefix::step_of(const Running& running) {
  return generation_.decode(running.n_cached_tokens, running.n_sequences).time_s;
}

StoredPrefix::StoredPrefix(const ModelSpec& model,
                           const Stored& stored,
                           const LatencySettings& settings,
                           const LawSource& laws)
    : memory_(prepare_ideal(model, memory_settings(stored))),
      rank_share_(stored.rank_share),
      steps_(std::make_unique<StepOps>(model, with_scheme(settings, stored))),
      pricer_(laws) {
  if (stored.is_paged) {
    paged_row_bytes_ = paged_row_bytes(model, stored);
  }
  if (stored.unpacks && is_packed(stored)) {
    unpacked_ = prepare_ideal(model, memory_settings({}));
  }
  rebuilds_ = !rebuild_ops(1024).empty();
}

Bytes StoredPrefix::bytes(std::int64_t n_tokens) const {
  return Bytes(
      static_cast<double>(memory_->evaluate(n_tokens).cache.bytes() + n_tokens * paged_row_bytes_));
}

bool StoredPrefix::has_kv() const {
  return memory_->evaluate(1).cache.bytes() != memory_->evaluate(1).cache.state_bytes;
}

std::vector<Op> StoredPrefix::rebuild_ops(std::int64_t n_tokens) const {
  std::vector<Op> ops;
  steps_->emit({.n_cached_tokens = n_tokens - 1}, ops);
  std::erase_if(ops, [](const Op& op) { return !is_rebuilding(op); });
  if (unpacked_ != nullptr) {
    const auto layers = static_cast<double>(steps_->n_layers());
    const Bytes wide(static_cast<double>(unpacked_->evaluate(n_tokens).cache.bytes()));
    ops.push_back({.op_class = {.kind = OpKind::elementwise},
                   .part = "unpack",
                   .cost = {.read = rank_share_ / layers * bytes(n_tokens),
                            .written = rank_share_ / layers * wide},
                   .n_blocks = n_tokens,
                   .n_times = steps_->n_layers()});
  }
  return ops;
}

Estimate StoredPrefix::rebuild(std::int64_t n_tokens) {
  if (!rebuilds_) {
    return {.provenance = Provenance::exact};
  }
  Estimate time = pricer_.price(rebuild_ops(n_tokens), 0, false).time_s;
  return time;
}

Bytes StoredPrefix::rebuild_traffic(std::int64_t n_tokens) {
  Bytes sum;
  if (rebuilds_) {
    for (const Op& op : rebuild_ops(n_tokens)) {
      sum += static_cast<double>(op.n_times) * (op.cost.read + op.cost.written);
    }
  }
  return sum;
}

}  // namespace kvfathom
