#include "model/crossover/prefix.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "model/engine/ideal.h"

namespace kvfathom {
namespace {

LatencySettings with_scheme(LatencySettings settings, const Stored& stored) {
  settings.scheme = stored.scheme;
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

Estimate Prefix::recompute_many(std::int64_t n_tokens, std::int64_t n_prefixes) {
  return generation_.prompts(n_tokens, n_prefixes);
}

Estimate Prefix::recompute_behind(std::int64_t n_tokens, std::int64_t n_cached_tokens) {
  return generation_.prompt(n_tokens, n_cached_tokens).time_s;
}

StoredPrefix::StoredPrefix(const ModelSpec& model,
                           const Stored& stored,
                           const LatencySettings& settings,
                           const LawSource& laws)
    : memory_(prepare_ideal(model, memory_settings(stored))),
      steps_(std::make_unique<StepOps>(model, with_scheme(settings, stored))),
      pricer_(laws) {
  rebuilds_ = !rebuild_ops(1024).empty();
}

Bytes StoredPrefix::bytes(std::int64_t n_tokens) const {
  return Bytes(static_cast<double>(memory_->evaluate(n_tokens).cache.bytes()));
}

std::vector<Op> StoredPrefix::rebuild_ops(std::int64_t n_tokens) const {
  std::vector<Op> ops;
  steps_->emit({.n_cached_tokens = n_tokens - 1}, ops);
  std::erase_if(ops, [](const Op& op) { return !is_rebuilding(op); });
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
