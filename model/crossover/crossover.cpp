#include "model/crossover/crossover.h"

#include <algorithm>
#include <cmath>

namespace kvfathom {
namespace {

/// The smallest number in (low, high] for which `holds`, which holds for high and not for low.
std::int64_t first_true(std::int64_t low,
                        std::int64_t high,
                        const std::function<bool(std::int64_t)>& holds) {
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (holds(middle) ? high : low) = middle;
  }
  return high;
}

double or_zero(const TimeOf& time_s, std::int64_t n_tokens) {
  return n_tokens > 0 ? time_s(n_tokens) : 0.0;
}

}  // namespace

Seconds overlapped(const ArmCost& cost) {
  const Seconds busiest = std::max({cost.link, cost.compute, cost.memory});
  const Seconds device = std::max(cost.compute, cost.memory);
  const Seconds other = std::min(cost.link, device);
  return busiest + other / static_cast<double>(cost.n_stages);
}

ArmCost under_load(const ArmCost& idle, const Load& load) {
  ArmCost busy = idle;
  busy.compute = idle.compute / (1.0 - load.compute_share);
  if (idle.compute.value() > 0.0) {  // what lands by itself waits for no kernel
    busy.memory = idle.memory / (1.0 - load.compute_share);
  }
  busy.link =
      idle.link.value() > 0.0 ? load.queued + idle.link / (1.0 - load.link_share) : idle.link;
  return busy;
}

std::vector<Reign> reigns(const TimeOf& fetch_s,
                          const TimeOf& rebuild_s,
                          std::int64_t limit_tokens) {
  const auto fetch_wins = [&](std::int64_t n) { return fetch_s(n) <= rebuild_s(n); };
  std::vector<Reign> all{{1, fetch_wins(1)}};
  const double step = std::exp2(1.0 / 8.0);
  std::int64_t before = 1;
  while (before < limit_tokens) {
    const auto next = static_cast<std::int64_t>(std::ceil(static_cast<double>(before) * step));
    const std::int64_t at = std::min(limit_tokens, std::max(before + 1, next));
    const bool now = fetch_wins(at);
    if (now != all.back().fetch) {
      all.push_back(
          {first_true(before, at, [&](std::int64_t n) { return fetch_wins(n) == now; }), now});
    }
    before = at;
  }
  return all;
}

Split best_token_split(const TimeOf& fetch_s, const TimeOf& rebuild_s, std::int64_t n_tokens) {
  // Computing grows with the tokens computed and loading falls: they meet once.
  const auto computing_lasts = [&](std::int64_t computed) {
    return or_zero(rebuild_s, computed) >= or_zero(fetch_s, n_tokens - computed);
  };
  const std::int64_t meet = first_true(-1, n_tokens, computing_lasts);
  const auto time_of = [&](std::int64_t computed) {
    return std::max(or_zero(rebuild_s, computed), or_zero(fetch_s, n_tokens - computed));
  };
  const std::int64_t before = std::max<std::int64_t>(0, meet - 1);
  const std::int64_t best = time_of(before) < time_of(meet) ? before : meet;
  return {best, n_tokens - best, time_of(best)};
}

LayerSplit best_layer_split(const ArmCost& rebuilt_layer,
                            const ArmCost& fetched_layer,
                            std::int64_t n_layers) {
  LayerSplit best{0, -1.0};
  for (std::int64_t n = 0; n <= n_layers; ++n) {
    const auto rebuilt = static_cast<double>(n);
    const auto fetched = static_cast<double>(n_layers - n);
    const ArmCost cost{.link = rebuilt * rebuilt_layer.link + fetched * fetched_layer.link,
                       .compute = rebuilt * rebuilt_layer.compute + fetched * fetched_layer.compute,
                       .memory = rebuilt * rebuilt_layer.memory + fetched * fetched_layer.memory,
                       .n_stages = n_layers};
    const double time_s = overlapped(cost).value();
    if (best.time_s < 0.0 || time_s < best.time_s) {
      best = {n, time_s};
    }
  }
  return best;
}

Split best_partial_recompute(const TimeOf& fetch_x_s,
                             const TimeOf& project_s,
                             const TimeOf& fetch_kv_s,
                             std::int64_t n_tokens) {
  const auto time_of = [&](std::int64_t l) {
    return or_zero(fetch_x_s, l) +
           std::max(or_zero(project_s, l), or_zero(fetch_kv_s, n_tokens - l));
  };
  // Up to where projecting takes as long as the rest takes to come, t changes at a constant rate;
  // from there on it only grows: the best is at an end or where they meet.
  const std::int64_t meet = first_true(-1, n_tokens, [&](std::int64_t l) {
    return or_zero(project_s, l) >= or_zero(fetch_kv_s, n_tokens - l);
  });
  std::int64_t best = 0;
  for (const std::int64_t l : {std::max<std::int64_t>(0, meet - 1), meet, n_tokens}) {
    best = time_of(l) < time_of(best) ? l : best;
  }
  return {best, n_tokens - best, time_of(best)};
}

}  // namespace kvfathom
