#include "cli/crossover_arms.h"

#include <algorithm>

#include "cli/crossover_error.h"
#include "cli/format.h"
#include "cli/headline.h"
#include "model/cache/applicability.h"
#include "model/cache/request_text.h"
#include "model/error.h"
#include "model/rounding.h"

namespace kvfathom::cli {
namespace {

/// Of K and V, what crosses one GPU's link: each rank carries its own heads, or what all heads
/// share. Stages of layers divide it again.
double share_of_ranks(const Query& query) {
  std::int64_t heads = query.settings.tensor_parallel;
  for (const LayerSpec& layer : query.model.spec.layers) {
    if (const auto* a = std::get_if<Attention>(&layer.mixer)) {
      heads = std::min(heads, a->n_kv_heads);
    } else if (std::holds_alternative<LatentAttention>(layer.mixer)) {
      heads = 1;
    }
  }
  return 1.0 / static_cast<double>(heads);
}

/// X is every rank's, of which each projects its own heads.
bool stores_inputs(CacheScheme scheme) {
  return scheme == CacheScheme::residual || scheme == CacheScheme::xquant;
}

bool evicts(CacheScheme scheme) {
  return name(scheme).starts_with("evict-");
}

CacheCase with_scheme(const CacheCase& native, const char* text) {
  const cache::ParsedScheme parsed = cache::parse_scheme(text);
  return {.scheme = parsed.request.id,
          .k = native.k,
          .v = native.v,
          .parameters = parsed.request.parameters};
}

}  // namespace

CrossoverArms::CrossoverArms(const Query& query, const CacheCase& cache_case)
    : laws_(laws_of(query, Phase::prefill)),
      chunk_tokens_(kvfathom::cli::chunk_tokens(query)),
      device_bandwidth_(query.machine.devices.front().bandwidth),
      is_plain_(cache::is_model_scheme(cache_case.scheme)),
      is_evicted_(evicts(cache_case.scheme)),
      is_divisible_(!is_evicted_) {
  const LatencySettings settings = latency_settings(query, cache_case);
  n_stages_ = settings.pipeline_parallel;
  prefix_ = std::make_unique<Prefix>(query.model.spec, settings, *laws_, chunk_tokens_);
  const std::string types = type_pair(cache_case.k, cache_case.v);
  kept_.push_back(
      kept_as(query,
              cache_case,
              !is_plain_,
              is_plain_ ? "K and V, " + types : cache::spelled(request_of(cache_case))));
  if (!kept_.front().stored->has_kv()) {
    kept_.front().name = "fetch states";
    is_divisible_ = false;
  }
  add_alternatives(query, cache_case);
}

CrossoverArms::Kept CrossoverArms::kept_as(const Query& query,
                                           const CacheCase& cache_case,
                                           bool unpacks,
                                           std::string name) const {
  Kept kept{.name = "fetch " + std::move(name),
            .id = std::string(kvfathom::name(cache_case.scheme)),
            .exact = !unpacks || (keeps_all(cache_case.k) && keeps_all(cache_case.v) &&
                                  cache::is_exact(request_of(cache_case))),
            .share = stores_inputs(cache_case.scheme) ? 1.0 : share_of_ranks(query)};
  kept.stored = std::make_unique<StoredPrefix>(
      query.model.spec,
      Stored{.scheme = request_of(cache_case),
             .cache_type_k = cache_case.k,
             .cache_type_v = cache_case.v,
             .unpacks = unpacks && !stores_inputs(cache_case.scheme),
             .is_paged = loads_checkpoints(*query.engine) && query.engine->name != "huggingface",
             .rank_share = kept.share},
      latency_settings(query, cache_case),
      *laws_);
  return kept;
}

/// Leaves out what does not apply to the model.
void CrossoverArms::add_alternative(const Query& query,
                                    const CacheCase& other,
                                    std::string name,
                                    std::vector<Kept>& to,
                                    std::string how) {
  try {
    to.push_back(kept_as(query, other, true, std::move(name)));
    to.back().how = std::move(how);
  } catch (const InputError&) {
    return;
  } catch (const Unsupported&) {
    return;
  }
}

void CrossoverArms::add_alternatives(const Query& query, const CacheCase& asked) {
  const CacheCase native{.k = asked.k, .v = asked.v};
  const auto add = [&](const CacheCase& other, std::string name) {
    if (other != asked) {
      add_alternative(query, other, std::move(name), kept_);
    }
  };
  if (!is_plain_) {
    add(native, "K and V, " + type_pair(asked.k, asked.v));
  }
  if (asked.k != DType::q8_0) {
    add({.k = DType::q8_0, .v = DType::q8_0}, "K and V, q8_0");
  }
  add(with_scheme(native, "kivi"), "2-bit kivi");
  add(with_scheme(native, "k-only"), "K, rebuild V");
  add(with_scheme(native, "residual"), "X, project");
  add(with_scheme(native, "xquant:bits=4"), "4-bit X, project");
  for (std::int64_t n = 1; n < prefix_->n_layers(); n *= 2) {
    CacheCase some = with_scheme(native, "residual");
    some.parameters = cache::ResidualParameters{.checkpoints = n};
    if (some != asked) {
      add_alternative(query, some, "X, run the rest", checkpoints_, "X of " + counted(n, "layer"));
    }
  }
  if (is_plain_) {
    add_evictions(query, native);
  }
}

void CrossoverArms::add_evictions(const Query& query, const CacheCase& native) {
  const std::string budget = thousands(cache::EvictSnapKv::kDefaults.budget);
  add_alternative(query, with_scheme(native, "evict-snapkv"), "SnapKV's " + budget, kept_);
  for (const auto& [id, name] :
       {std::pair{"evict-snapkv", "SnapKV"}, std::pair{"evict-grkv", "GRKV"}}) {
    try {
      compressed_.push_back(
          {.name = std::string("recompute, ") + name,
           .id = std::string("recompute-") + id,
           .prefix = std::make_unique<Prefix>(query.model.spec,
                                              latency_settings(query, with_scheme(native, id)),
                                              *laws_,
                                              chunk_tokens_)});
    } catch (const InputError&) {
      return;
    }
  }
}

const CrossoverArms::Work& CrossoverArms::work_of(Kept& kept, std::int64_t n_tokens) const {
  const auto known = kept.work.find(n_tokens);
  if (known != kept.work.end()) {
    return known->second;
  }
  const auto n_stages = static_cast<double>(n_stages_);
  const Bytes bytes = (kept.share / n_stages) * kept.stored->bytes(n_tokens);
  Estimate rebuild = kept.stored->rebuild(n_tokens);
  rebuild.value /= n_stages;
  rebuild.low /= n_stages;
  rebuild.high /= n_stages;
  const Bytes traffic = kept.stored->rebuild_traffic(n_tokens) / n_stages;
  return kept.work.emplace(n_tokens, Work{bytes, rebuild, (bytes + traffic) / device_bandwidth_})
      .first->second;
}

ArmCost CrossoverArms::cost_of(Kept& kept,
                               const TierLink& tier,
                               std::int64_t n_tokens,
                               const Busy& busy) {
  const Work& work = work_of(kept, n_tokens);
  ArmCost cost{.link = transfer_time(tier.link, work.bytes),
               .compute = Seconds(work.rebuild.value),
               .memory = work.memory,
               .n_stages = std::max<std::int64_t>(1, prefix_->n_layers() / n_stages_)};
  if (busy.running.n_sequences > 0 && cost.compute.value() > 0.0) {
    cost.compute += wait_beside(n_tokens, busy.running);
  }
  return under_load(cost,
                    {.compute_share = busy.compute_share,
                     .queued = transfer_time(tier.link, busy.queued),
                     .link_share = busy.link_share});
}

Estimate CrossoverArms::time_of(Kept& kept,
                                const TierLink& tier,
                                std::int64_t n_tokens,
                                const Busy& busy) {
  const ArmCost cost = cost_of(kept, tier, n_tokens, busy);
  return mixed(overlapped(cost).value(), cost, work_of(kept, n_tokens).rebuild, tier);
}

/// Decode steps of others between the chunks of a rebuilding.
Seconds CrossoverArms::wait_beside(std::int64_t n_tokens, const Running& running) {
  const std::int64_t chunk = std::max<std::int64_t>(1, chunk_tokens_ - running.n_sequences);
  const std::int64_t n_chunks = divide_up(n_tokens, chunk);
  return static_cast<double>(n_chunks) * Seconds(prefix_->step_of(running).value);
}

Estimate CrossoverArms::fetch(const TierLink& tier, std::int64_t n_tokens, const Busy& busy) {
  return time_of(kept_.front(), tier, n_tokens, busy);
}

const Estimate& CrossoverArms::recomputed(std::int64_t n_tokens, const Running& running) {
  const std::pair key(n_tokens, running.n_sequences);
  const auto known = recomputed_.find(key);
  return known != recomputed_.end()
             ? known->second
             : recomputed_.emplace(key, prefix_->recompute_beside(n_tokens, running)).first->second;
}

Estimate CrossoverArms::recompute(std::int64_t n_tokens, const Busy& busy) {
  return slowed(recomputed(n_tokens, busy.running), busy);
}

BytesPerSecond CrossoverArms::even_bandwidth(const TierLink& tier,
                                             std::int64_t n_tokens,
                                             const Busy& busy) {
  // What the link may take: the rest of the time of the busiest resource and a stage of the other.
  TierLink at_once = tier;
  at_once.link.bandwidth = BytesPerSecond(1e300);
  at_once.link.call = Seconds();
  const double on_device = fetch(at_once, n_tokens, busy).value;
  const double time_s = recompute(n_tokens, busy).value;
  const auto n = static_cast<double>(std::max<std::int64_t>(1, prefix_->n_layers() / n_stages_));
  double link_s = time_s - on_device / n;
  if (link_s < on_device) {
    link_s = n * (time_s - on_device);
  }
  // The link takes what waits before ours, and ours as much longer as it is shared.
  const double stretch = 1.0 / (1.0 - busy.link_share);
  const Bytes ours = work_of(kept_.front(), n_tokens).bytes;
  at_once.link.call = tier.link.call;
  const Seconds calls =
      transfer_time(at_once.link, busy.queued) + stretch * transfer_time(at_once.link, ours);
  const double flowing_s = link_s - calls.value();
  return flowing_s > 0.0 ? (busy.queued + stretch * ours) / Seconds(flowing_s) : BytesPerSecond();
}

double CrossoverArms::fetch_many_s(const TierLink& tier,
                                   std::int64_t n_tokens,
                                   std::int64_t n,
                                   const Busy& busy) {
  Busy behind = busy;
  behind.queued = {};  // what waited on the link went before the first
  TierLink flowing = tier;
  if (tier.tier == Tier::network) {
    flowing.link.call = Seconds();  // the others' handshakes are over by then
  }
  return fetch(tier, n_tokens, busy).value +
         static_cast<double>(n - 1) * fetch(flowing, n_tokens, behind).value;
}

double CrossoverArms::recompute_many_s(std::int64_t n_tokens, std::int64_t n, const Busy& busy) {
  return slowed(prefix_->recompute_many(n_tokens, n, busy.running), busy).value;
}

}  // namespace kvfathom::cli
