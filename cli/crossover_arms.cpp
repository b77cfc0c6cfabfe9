#include "cli/crossover_arms.h"

#include <algorithm>
#include <cmath>

#include "cli/format.h"
#include "cli/headline.h"
#include "model/cache/request_text.h"
#include "model/error.h"

namespace kvfathom::cli {
namespace {

/// Published copies lie within 10 % of what a link is taken to reach here.
constexpr double kLinkLogError = 0.1;

/// Ranks that each carry their own share of K and V; what all heads share is carried by each.
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

Estimate with_error(double value, double log_error, Provenance provenance) {
  return {value, value * std::exp(-log_error), value * std::exp(log_error), provenance};
}

/// The error of a rebuilt arm: the law's where computing lasts longest, the link's where it does.
Estimate mixed(double value, const ArmCost& cost, const Estimate& compute, Provenance link) {
  const double busiest = std::max({cost.link.value(), cost.compute.value(), cost.memory.value()});
  const double log_error = cost.link.value() >= busiest || compute.value <= 0.0
                               ? kLinkLogError
                               : std::log(compute.high / compute.value);
  return with_error(value, log_error, worst(link, compute.provenance));
}

}  // namespace

CrossoverArms::CrossoverArms(const Query& query, const Load& load)
    : laws_(laws_of(query, Phase::prefill)),
      device_bandwidth_(query.machine.devices.front().bandwidth),
      load_(load) {
  const CacheCase native{.k = query.settings.cache_type_k, .v = query.settings.cache_type_v};
  const LatencySettings settings = latency_settings(query, native);
  prefix_ = std::make_unique<Prefix>(query.model.spec, settings, *laws_, chunk_tokens(query));
  const double share = share_of_ranks(query);
  add_kept(
      query,
      {.cache_type_k = native.k, .cache_type_v = native.v},
      {.name = "fetch K and V, " + type_pair(native.k, native.v), .id = "native", .share = share});
  if (native.k != DType::q8_0) {
    add_kept(query,
             {.cache_type_k = DType::q8_0, .cache_type_v = DType::q8_0},
             {.name = "fetch K and V, q8_0", .id = "native", .exact = false, .share = share});
  }
  add_kept(query,
           {.scheme = cache::parse_scheme("residual").request},
           {.name = "fetch X, project", .id = "residual"});
  add_kept(query,
           {.scheme = cache::parse_scheme("xquant:bits=4").request},
           {.name = "fetch 4-bit X, project", .id = "xquant", .exact = false});
}

/// Leaves out what does not apply to the model.
void CrossoverArms::add_kept(const Query& query, const Stored& stored, Kept kept) {
  const CacheCase native{.k = stored.cache_type_k, .v = stored.cache_type_v};
  try {
    kept.stored = std::make_unique<StoredPrefix>(
        query.model.spec, stored, latency_settings(query, native), *laws_);
  } catch (const InputError&) {
    return;
  } catch (const Unsupported&) {
    return;
  }
  kept_.push_back(std::move(kept));
}

Bytes CrossoverArms::moved(std::int64_t n_tokens) const {
  const Kept& kv = kept_.front();
  return kv.share * kv.stored->bytes(n_tokens);
}

ArmCost CrossoverArms::cost_of(Kept& kept, const Link& link, std::int64_t n_tokens) const {
  const Bytes bytes = kept.share * kept.stored->bytes(n_tokens);
  return {.link = transfer_time(link, bytes),
          .compute = Seconds(kept.stored->rebuild(n_tokens).value),
          .memory = (bytes + kept.stored->rebuild_traffic(n_tokens)) / device_bandwidth_,
          .n_stages = prefix_->n_layers()};
}

Estimate CrossoverArms::fetch(const TierLink& tier, std::int64_t n_tokens, const Load& load) {
  const ArmCost cost = under_load(cost_of(kept_.front(), tier.link, n_tokens), load);
  return with_error(overlapped(cost).value(), kLinkLogError, tier.provenance);
}

const Estimate& CrossoverArms::recomputed(std::int64_t n_tokens) {
  const auto known = recomputed_.find(n_tokens);
  return known != recomputed_.end()
             ? known->second
             : recomputed_.emplace(n_tokens, prefix_->recompute(n_tokens)).first->second;
}

Estimate CrossoverArms::recompute(std::int64_t n_tokens, const Load& load) {
  Estimate time = recomputed(n_tokens);
  const double slower = 1.0 / (1.0 - load.compute_share);
  time.value *= slower;
  time.low *= slower;
  time.high *= slower;
  return time;
}

Arm CrossoverArms::arm_of(Kept& kept, const TierLink& tier, std::int64_t n_tokens) {
  const ArmCost cost = cost_of(kept, tier.link, n_tokens);
  const double time_s = overlapped(cost).value();
  return {.name = kept.name,
          .id = kept.id,
          .how = {},
          .moved_bytes = kept.share * kept.stored->bytes(n_tokens).value(),
          .time_s = mixed(time_s, cost, kept.stored->rebuild(n_tokens), tier.provenance),
          .exact = kept.exact};
}

void CrossoverArms::add_mixes(const TierLink& tier,
                              std::int64_t n_tokens,
                              Split& split,
                              std::vector<Arm>& arms) {
  const auto fetch_s = [&](std::int64_t n) { return fetch(tier, n, {}).value; };
  const auto recompute_s = [&](std::int64_t n) { return recomputed(n).value; };
  split = best_token_split(fetch_s, recompute_s, n_tokens);
  const double log_error = std::log(arms[1].time_s.high / arms[1].time_s.value);
  const Provenance provenance = worst(arms[0].time_s.provenance, arms[1].time_s.provenance);
  const double moved_share =
      static_cast<double>(split.fetched_tokens) / static_cast<double>(n_tokens);
  arms.push_back({.name = "both ends at once",
                  .id = "split-tokens",
                  .how = thousands(split.recomputed_tokens) + " computed",
                  .moved_bytes = moved_share * arms[0].moved_bytes,
                  .time_s = with_error(split.time_s, log_error, provenance)});
  const auto x = std::ranges::find(kept_, std::string("residual"), &Kept::id);
  if (x == kept_.end()) {
    return;
  }
  const auto per_layer = [&](Kept& kept) {
    ArmCost cost = cost_of(kept, tier.link, n_tokens);
    const auto n = static_cast<double>(cost.n_stages);
    return ArmCost{cost.link / n, cost.compute / n, cost.memory / n, cost.n_stages};
  };
  const LayerSplit layers =
      best_layer_split(per_layer(*x), per_layer(kept_.front()), prefix_->n_layers());
  arms.push_back({.name = "X of some layers",
                  .id = "split-layers",
                  .how = "X of " + thousands(layers.rebuilt_layers) + " layers",
                  .moved_bytes = 0.0,
                  .time_s = with_error(layers.time_s, log_error, provenance)});
  const double rebuilt =
      static_cast<double>(layers.rebuilt_layers) / static_cast<double>(prefix_->n_layers());
  arms.back().moved_bytes =
      rebuilt * x->stored->bytes(n_tokens).value() + (1.0 - rebuilt) * arms[0].moved_bytes;
  const Split partial = best_partial_recompute(
      [&](std::int64_t n) {
        return transfer_time(tier.link, x->share * x->stored->bytes(n)).value();
      },
      [&](std::int64_t n) { return x->stored->rebuild(n).value; },
      fetch_s,
      n_tokens);
  arms.push_back({.name = "X, then K and V",
                  .id = "partial-recompute",
                  .how = "X of " + thousands(partial.recomputed_tokens),
                  .moved_bytes = 0.0,
                  .time_s = with_error(partial.time_s, log_error, provenance)});
  arms.back().moved_bytes =
      (partial.recomputed_tokens > 0
           ? x->share * x->stored->bytes(partial.recomputed_tokens).value()
           : 0.0) +
      (partial.fetched_tokens > 0 ? moved(partial.fetched_tokens).value() : 0.0);
}

std::vector<Arm> CrossoverArms::arms(const TierLink& tier, std::int64_t n_tokens, Split& split) {
  std::vector<Arm> all{arm_of(kept_.front(), tier, n_tokens)};
  all.push_back({.name = "recompute",
                 .id = "recompute",
                 .how = {},
                 .moved_bytes = 4.0 * static_cast<double>(n_tokens),  // token ids
                 .time_s = recomputed(n_tokens)});
  for (std::size_t i = 1; i < kept_.size(); ++i) {
    all.push_back(arm_of(kept_[i], tier, n_tokens));
  }
  add_mixes(tier, n_tokens, split, all);
  return all;
}

}  // namespace kvfathom::cli
