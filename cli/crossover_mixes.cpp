// The table of ways to bring a prefix back: every stored form, and mixes of two.
#include <algorithm>
#include <stdexcept>
#include <string>

#include "cli/crossover_arms.h"
#include "cli/crossover_error.h"
#include "cli/format.h"

namespace kvfathom::cli {
namespace {

double share_of(std::int64_t part, std::int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

Arm CrossoverArms::arm_of(Kept& kept,
                          const TierLink& tier,
                          std::int64_t n_tokens,
                          const Busy& busy) {
  return {.name = kept.name,
          .id = kept.id,
          .how = kept.how,
          .moved_bytes = work_of(kept, n_tokens).bytes.value(),
          .time_s = time_of(kept, tier, n_tokens, busy),
          .exact = kept.exact};
}

Estimate CrossoverArms::fetch_inputs(const TierLink& tier, std::int64_t n_tokens) {
  const auto x = std::ranges::find(kept_, std::string("residual"), &Kept::id);
  if (x == kept_.end()) {
    throw std::logic_error("attention without an arm for its inputs");
  }
  return time_of(*x, tier, n_tokens, {});
}

/// Other forms than the one asked about; lossy ones where they are smaller at this length.
void CrossoverArms::add_kept(const TierLink& tier,
                             std::int64_t n_tokens,
                             const Busy& busy,
                             std::vector<Arm>& arms) {
  for (std::size_t i = 1; i < kept_.size(); ++i) {
    Arm arm = arm_of(kept_[i], tier, n_tokens, busy);
    if (arm.exact || arm.moved_bytes < arms.front().moved_bytes) {
      arms.push_back(std::move(arm));
    }
  }
  std::vector<Arm> some;
  for (Kept& kept : checkpoints_) {
    some.push_back(arm_of(kept, tier, n_tokens, busy));
  }
  if (!some.empty()) {
    arms.push_back(
        *std::ranges::min_element(some, {}, [](const Arm& arm) { return arm.time_s.value; }));
  }
  for (const Compressed& one : compressed_) {
    if (n_tokens > cache::EvictSnapKv::kDefaults.budget) {
      arms.push_back({.name = one.name,
                      .id = one.id,
                      .how = {},
                      .moved_bytes = arms[1].moved_bytes,
                      .time_s = slowed(one.prefix->recompute_beside(n_tokens, busy.running), busy),
                      .exact = false});
    }
  }
}

/// X of no layer, or of no token, is the first arm again, and X of all has one: left out.
void CrossoverArms::add_layer_split(const TierLink& tier,
                                    std::int64_t n_tokens,
                                    const Busy& busy,
                                    Kept& x,
                                    std::vector<Arm>& arms) {
  const auto per_layer = [&](Kept& kept) {
    const ArmCost cost = cost_of(kept, tier, n_tokens, busy);
    const auto n = static_cast<double>(cost.n_stages);
    return ArmCost{cost.link / n, cost.compute / n, cost.memory / n, cost.n_stages};
  };
  const ArmCost of_x = per_layer(x);
  const std::int64_t n_layers = of_x.n_stages;  // of one GPU
  const LayerSplit layers = best_layer_split(of_x, per_layer(kept_.front()), n_layers);
  if (layers.rebuilt_layers == 0 || layers.rebuilt_layers == n_layers) {
    return;
  }
  const double rebuilt = share_of(layers.rebuilt_layers, n_layers);
  arms.push_back(
      {.name = "X of some layers",
       .id = "split-layers",
       .how = "X of " + counted(n_stages_ * layers.rebuilt_layers, "layer"),
       .moved_bytes =
           rebuilt * work_of(x, n_tokens).bytes.value() + (1.0 - rebuilt) * arms[0].moved_bytes,
       .time_s = shared_error(layers.time_s, rebuilt, time_of(x, tier, n_tokens, busy), tier)});
}

/// What waits on the link goes before X, and K and V flow right behind.
void CrossoverArms::add_partial_recompute(const TierLink& tier,
                                          std::int64_t n_tokens,
                                          const Busy& busy,
                                          Kept& x,
                                          std::vector<Arm>& arms) {
  Busy behind = busy;
  behind.queued = {};
  const Split partial = best_partial_recompute(
      [&](std::int64_t n) { return cost_of(x, tier, n, busy).link.value(); },
      [&](std::int64_t n) { return cost_of(x, tier, n, busy).compute.value(); },
      [&](std::int64_t n) { return fetch(tier, n, behind).value; },
      n_tokens);
  if (partial.recomputed_tokens == 0 || partial.fetched_tokens == 0) {
    return;
  }
  const Bytes moved = work_of(x, partial.recomputed_tokens).bytes +
                      work_of(kept_.front(), partial.fetched_tokens).bytes;
  arms.push_back({.name = "X, then K and V",
                  .id = "partial-recompute",
                  .how = "X of " + thousands(partial.recomputed_tokens),
                  .moved_bytes = moved.value(),
                  .time_s = shared_error(partial.time_s,
                                         share_of(partial.recomputed_tokens, n_tokens),
                                         time_of(x, tier, n_tokens, busy),
                                         tier)});
}

void CrossoverArms::add_mixes(const TierLink& tier,
                              std::int64_t n_tokens,
                              const Busy& busy,
                              Split& split,
                              std::vector<Arm>& arms) {
  const double fetch_s = arms[0].time_s.value;
  const double recompute_s = arms[1].time_s.value;
  if (!is_divisible_) {
    split = fetch_s <= recompute_s ? Split{0, n_tokens, fetch_s} : Split{n_tokens, 0, recompute_s};
    return;
  }
  split = best_token_split([&](std::int64_t n) { return fetch(tier, n, busy).value; },
                           [&](std::int64_t n) { return recompute(n, busy).value; },
                           n_tokens);
  const double fetched = share_of(split.fetched_tokens, n_tokens);
  arms.push_back({.name = "both ends at once",
                  .id = "split-tokens",
                  .how = thousands(split.recomputed_tokens) + " computed",
                  .moved_bytes = fetched * arms[0].moved_bytes,
                  .time_s = shared_error(split.time_s, 1.0 - fetched, arms[1].time_s, tier)});
  const auto x = std::ranges::find(kept_, std::string("residual"), &Kept::id);
  if (is_plain_ && x != kept_.end()) {
    add_layer_split(tier, n_tokens, busy, *x, arms);
    add_partial_recompute(tier, n_tokens, busy, *x, arms);
  }
}

std::vector<Arm> CrossoverArms::arms(const TierLink& tier,
                                     std::int64_t n_tokens,
                                     const Busy& busy,
                                     Split& split) {
  std::vector<Arm> all{arm_of(kept_.front(), tier, n_tokens, busy)};
  all.push_back({.name = "recompute",
                 .id = "recompute",
                 .how = {},
                 .moved_bytes = 4.0 * static_cast<double>(n_tokens),  // token ids
                 .time_s = recompute(n_tokens, busy),
                 .exact = !is_evicted_});
  add_kept(tier, n_tokens, busy, all);
  add_mixes(tier, n_tokens, busy, split, all);
  return all;
}

}  // namespace kvfathom::cli
