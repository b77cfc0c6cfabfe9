#include "cli/crossover_arms.h"

#include <algorithm>
#include <cmath>

#include "cli/format.h"
#include "cli/headline.h"
#include "model/cache/request_text.h"
#include "model/error.h"

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

Estimate with_error(double value, double log_error, Provenance provenance) {
  return {value, value * std::exp(-log_error), value * std::exp(log_error), provenance};
}

/// By how much a time may be off, as a logarithm.
double log_error(const Estimate& time) {
  return time.value > 0.0 ? std::log(time.high / time.value) : 0.0;
}

/// The error of an arm that waits for the link and for the device: each counts by its share.
Estimate mixed(double value, const ArmCost& cost, const Estimate& compute, const TierLink& tier) {
  const double on_device = std::max(cost.compute.value(), cost.memory.value());
  const double of_link = cost.link.value() / (cost.link.value() + on_device);
  const double error = of_link * tier.log_error + (1.0 - of_link) * log_error(compute);
  return with_error(value, error, worst(tier.provenance, compute.provenance));
}

}  // namespace

CrossoverArms::CrossoverArms(const Query& query, const Load& load)
    : laws_(laws_of(query, Phase::prefill)),
      device_bandwidth_(query.machine.devices.front().bandwidth),
      load_(load) {
  const CacheCase native{.k = query.settings.cache_type_k, .v = query.settings.cache_type_v};
  const LatencySettings settings = latency_settings(query, native);
  prefix_ = std::make_unique<Prefix>(query.model.spec, settings, *laws_, chunk_tokens(query));
  n_stages_ = settings.pipeline_parallel;
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

Bytes CrossoverArms::moved(const Kept& kept, std::int64_t n_tokens) const {
  return (kept.share / static_cast<double>(n_stages_)) * kept.stored->bytes(n_tokens);
}

ArmCost CrossoverArms::cost_of(Kept& kept, const Link& link, std::int64_t n_tokens) const {
  const auto n_stages = static_cast<double>(n_stages_);
  const Bytes bytes = moved(kept, n_tokens);
  const Bytes rebuilt = kept.stored->rebuild_traffic(n_tokens) / n_stages;
  return {.link = transfer_time(link, bytes),
          .compute = Seconds(kept.stored->rebuild(n_tokens).value) / n_stages,
          .memory = (bytes + rebuilt) / device_bandwidth_,
          .n_stages = std::max<std::int64_t>(1, prefix_->n_layers() / n_stages_)};
}

Estimate CrossoverArms::fetch(const TierLink& tier, std::int64_t n_tokens, const Load& load) {
  const ArmCost cost = under_load(cost_of(kept_.front(), tier.link, n_tokens), load);
  return with_error(overlapped(cost).value(), tier.log_error, tier.provenance);
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

double CrossoverArms::fetch_many_s(const TierLink& tier, std::int64_t n_tokens, std::int64_t n) {
  TierLink flowing = tier;
  if (tier.tier == Tier::network) {
    flowing.link.call = Seconds();  // the others' handshakes are over by then
  }
  return fetch(tier, n_tokens, {}).value +
         static_cast<double>(n - 1) * fetch(flowing, n_tokens, {}).value;
}

double CrossoverArms::recompute_many_s(std::int64_t n_tokens, std::int64_t n) {
  return prefix_->recompute_many(n_tokens, n).value;
}

Arm CrossoverArms::arm_of(Kept& kept, const TierLink& tier, std::int64_t n_tokens) {
  const ArmCost cost = cost_of(kept, tier.link, n_tokens);
  const double time_s = overlapped(cost).value();
  return {.name = kept.name,
          .id = kept.id,
          .how = {},
          .moved_bytes = moved(kept, n_tokens).value(),
          .time_s = mixed(time_s, cost, kept.stored->rebuild(n_tokens), tier),
          .exact = kept.exact};
}

void CrossoverArms::add_mixes(const TierLink& tier,
                              std::int64_t n_tokens,
                              Split& split,
                              std::vector<Arm>& arms) {
  const auto fetch_s = [&](std::int64_t n) { return fetch(tier, n, {}).value; };
  const auto recompute_s = [&](std::int64_t n) { return recomputed(n).value; };
  split = best_token_split(fetch_s, recompute_s, n_tokens);
  // As much of the rebuilding's error as of the prefix is rebuilt, and the link's for the rest.
  const auto with_share = [&](double time_s, double rebuilt, const Estimate& rebuilding) {
    const double error = rebuilt * log_error(rebuilding) + (1.0 - rebuilt) * tier.log_error;
    return with_error(time_s, error, worst(tier.provenance, rebuilding.provenance));
  };
  const double moved_share =
      static_cast<double>(split.fetched_tokens) / static_cast<double>(n_tokens);
  arms.push_back({.name = "both ends at once",
                  .id = "split-tokens",
                  .how = thousands(split.recomputed_tokens) + " computed",
                  .moved_bytes = moved_share * arms[0].moved_bytes,
                  .time_s = with_share(split.time_s, 1.0 - moved_share, arms[1].time_s)});
  const auto x = std::ranges::find(kept_, std::string("residual"), &Kept::id);
  if (x == kept_.end()) {
    return;
  }
  const Estimate of_x = arm_of(*x, tier, n_tokens).time_s;
  const auto per_layer = [&](Kept& kept) {
    ArmCost cost = cost_of(kept, tier.link, n_tokens);
    const auto n = static_cast<double>(cost.n_stages);
    return ArmCost{cost.link / n, cost.compute / n, cost.memory / n, cost.n_stages};
  };
  const std::int64_t n_layers = cost_of(*x, tier.link, n_tokens).n_stages;  // of one GPU
  const LayerSplit layers = best_layer_split(per_layer(*x), per_layer(kept_.front()), n_layers);
  const double rebuilt = static_cast<double>(layers.rebuilt_layers) / static_cast<double>(n_layers);
  arms.push_back(
      {.name = "X of some layers",
       .id = "split-layers",
       .how = "X of " + thousands(n_stages_ * layers.rebuilt_layers) + " layers",
       .moved_bytes = rebuilt * moved(*x, n_tokens).value() + (1.0 - rebuilt) * arms[0].moved_bytes,
       .time_s = with_share(layers.time_s, rebuilt, of_x)});
  const Split partial = best_partial_recompute(
      [&](std::int64_t n) { return transfer_time(tier.link, moved(*x, n)).value(); },
      [&](std::int64_t n) { return x->stored->rebuild(n).value / static_cast<double>(n_stages_); },
      fetch_s,
      n_tokens);
  const auto moved_or_none = [&](const Kept& kept, std::int64_t n) {
    return n > 0 ? moved(kept, n).value() : 0.0;
  };
  const double x_share =
      static_cast<double>(partial.recomputed_tokens) / static_cast<double>(n_tokens);
  arms.push_back({.name = "X, then K and V",
                  .id = "partial-recompute",
                  .how = "X of " + thousands(partial.recomputed_tokens),
                  .moved_bytes = moved_or_none(*x, partial.recomputed_tokens) +
                                 moved_or_none(kept_.front(), partial.fetched_tokens),
                  .time_s = with_share(partial.time_s, x_share, of_x)});
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
