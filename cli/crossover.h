// The answers of `kvfathom crossover`, and how they are shown.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/options.h"
#include "cli/query.h"
#include "model/crossover/crossover.h"
#include "model/latency/estimate.h"
#include "model/latency/step_time.h"

namespace kvfathom::cli {

/// A tier and the way to it.
struct TierLink {
  Tier tier = Tier::host;
  std::string name;
  Link link;
  double log_error = 0.0;  ///< of its bandwidth: 90 % lie within a factor exp(+-this)
  Provenance provenance = Provenance::datasheet;
};

/// One way to bring the prefix back.
struct Arm {
  std::string name;  ///< "K and V, bf16", "recompute", "half and half", ...
  std::string id;    ///< the scheme's, or "recompute", "split-tokens", ...
  std::string how;   ///< of a mix: "1,024 computed"
  double moved_bytes = 0.0;
  Estimate time_s;
  bool exact = true;
};

/// One tier's answer.
struct TierAnswer {
  TierLink tier;
  std::vector<Arm> arms = {};  ///< fetch K and V first, recompute second, then the others
  Split split = {};            ///< the best of tokens computed and tokens fetched
  std::vector<Reign> reigns = {};
  std::vector<Reign> reigns_loaded = {};  ///< under the load asked for; empty: none was
  /// Where fetching begins to win for good, with both arms at the far ends of their intervals.
  std::optional<std::int64_t> crossover_low = std::nullopt;
  std::optional<std::int64_t> crossover_high = std::nullopt;
  double crossover_bandwidth_bytes_per_s = 0.0;  ///< at the length asked for; 0: none is enough
  std::string sentence = {};
};

/// Decode steps under a scheme that rebuilds K or V, against plain reads, by batch.
struct DecodeArm {
  std::string scheme;
  std::vector<std::optional<std::int64_t>> pays_from_tokens;  ///< for each of kDecodeBatches
};
inline constexpr std::int64_t kDecodeBatches[] = {1, 8, 64};

/// Who wins by length (columns) and bandwidth, or prefixes at once (rows): rebuild time over fetch
/// time.
template <class Row>
struct CrossoverMap {
  std::vector<std::int64_t> lengths_tokens;
  std::vector<Row> rows;
  std::vector<double> ratios;  ///< row by row; above 1: fetching wins
};
using BandwidthMap = CrossoverMap<double>;    ///< bytes per second, the fastest first
using BatchMap = CrossoverMap<std::int64_t>;  ///< prefixes that are brought back together

struct CrossoverAnswer {
  std::int64_t context_tokens = 0;
  std::int64_t limit_tokens = 0;  ///< lengths looked at
  std::vector<TierAnswer> tiers;
  std::vector<DecodeArm> decode;
  std::optional<BandwidthMap> map;
  std::optional<BatchMap> batch_map;
  /// Of sequences that decode meanwhile: a step by itself, and one with a chunk of the recompute.
  std::optional<std::int64_t> running;
  double running_step_s = 0.0;
  double running_with_chunk_s = 0.0;
  double load = 0.0;
  std::string laws;
};

/// The tiers asked for, each with the way to it; every one that the machine has where none is
/// named.
[[nodiscard]] std::vector<TierLink> tiers_of(const Query& query,
                                             const LawSource& laws,
                                             const CrossoverOptions& options);

void print_crossover(Console& console, const Query& query, const CrossoverAnswer& answer);

/// A map in characters, and as a picture.
void print_map(Console& console, const BandwidthMap& map);
void print_map(Console& console, const BatchMap& map);
[[nodiscard]] std::string map_svg(const BandwidthMap& map, const std::string& title);
[[nodiscard]] std::string map_svg(const BatchMap& map, const std::string& title);

}  // namespace kvfathom::cli
