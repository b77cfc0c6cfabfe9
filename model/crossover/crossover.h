// Recompute or fetch: the arms' times, where they cross, and the best mix of both.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/crossover/link.h"
#include "model/latency/estimate.h"
#include "model/units.h"

namespace kvfathom {

/// What one way to bring a prefix back occupies, each resource by itself.
struct ArmCost {
  Seconds link = {};     ///< of the copy engine
  Seconds compute = {};  ///< of the device
  Seconds memory = {};   ///< of its memory: what rebuilding reads and writes, and what lands there
  std::int64_t n_stages = 1;  ///< equal pieces (layers) that one resource hands to the next
};

/// A pipeline of equal stages: the busiest resource, and one stage of the others to fill it.
[[nodiscard]] Seconds overlapped(const ArmCost& cost);

/// How busy a machine is besides.
struct Load {
  double compute_share = 0.0;  ///< of the device, taken by others: [0, 1)
  Seconds queued;              ///< transfers before ours on the link
  double link_share = 0.0;     ///< of its bandwidth, taken by others: [0, 1)
};
[[nodiscard]] ArmCost under_load(const ArmCost& idle, const Load& load);

/// Time by length of prefix; lengths from 1 on.
using TimeOf = std::function<double(std::int64_t n_tokens)>;

/// From `from_tokens` on (until the next entry), this arm is the quicker.
struct Reign {
  std::int64_t from_tokens = 1;
  bool fetch = true;
};

/// Who wins at each length up to `limit_tokens`: looked for at every 1/8 of an octave, each change
/// narrowed down to a token. A change and its undoing between two of these would be missed.
[[nodiscard]] std::vector<Reign> reigns(const TimeOf& fetch_s,
                                        const TimeOf& rebuild_s,
                                        std::int64_t limit_tokens);

/// Some tokens are computed, from the front, while the others are loaded, from the back (Cake,
/// arXiv 2410.03065): the split at which both are done together.
struct Split {
  std::int64_t recomputed_tokens = 0;
  std::int64_t fetched_tokens = 0;
  double time_s = 0.0;
};
/// `fetch_s` of any number of the last tokens; `rebuild_s` of any number of the first.
[[nodiscard]] Split best_token_split(const TimeOf& fetch_s,
                                     const TimeOf& rebuild_s,
                                     std::int64_t n_tokens);

/// So many layers by way of the residual stream, the others as K and V (HCache's schedule,
/// arXiv 2410.05004): the number that is quickest. Costs are of one layer.
struct LayerSplit {
  std::int64_t rebuilt_layers = 0;
  double time_s = 0.0;
};
[[nodiscard]] LayerSplit best_layer_split(const ArmCost& rebuilt_layer,
                                          const ArmCost& fetched_layer,
                                          std::int64_t n_layers);

/// X of the first tokens is fetched, then K and V of the others while those are computed (KVPR,
/// arXiv 2411.17089): t(l) = X(l) / BW + max(FLOPs(l) / F, KV(n - l) / BW), the best l.
[[nodiscard]] Split best_partial_recompute(const TimeOf& fetch_x_s,
                                           const TimeOf& project_s,
                                           const TimeOf& fetch_kv_s,
                                           std::int64_t n_tokens);

}  // namespace kvfathom
