// The answers of `kvfathom crossover`, and how they are shown.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/options.h"
#include "cli/query.h"
#include "cli/speed_plan.h"
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

/// What else the machine does.
struct Busy {
  double compute_share = 0.0;  ///< of the device's time, taken by others: [0, 1)
  double link_share = 0.0;     ///< of the link's bandwidth: [0, 1)
  Bytes queued;                ///< on the link before ours
  Running running;             ///< sequences whose steps the recompute's chunks share
};

/// Fetch against recompute, at the length asked for and by length.
struct Contest {
  Estimate fetch_s;
  Estimate recompute_s;
  std::vector<Reign> reigns = {};
  /// Where fetching begins to win for good, with both arms at the far ends of their intervals.
  std::optional<std::int64_t> crossover_low = std::nullopt;
  std::optional<std::int64_t> crossover_high = std::nullopt;
  double even_bandwidth_bytes_per_s = 0.0;  ///< 0: none is enough
  std::string sentence = {};
};

/// From where on fetching wins for good; nothing if it never does.
[[nodiscard]] std::optional<std::int64_t> crossover_tokens(const Contest& contest);

/// How a prefix may come back on a machine that is idle, or as busy as it is.
struct Ways {
  Contest contest;
  std::vector<Arm> arms = {};  ///< fetch first, recompute second, then the others
  Split split = {};            ///< the best of tokens computed and tokens fetched
};

/// One tier's answer.
struct TierAnswer {
  TierLink tier;
  Ways idle = {};
  std::optional<Ways> loaded = std::nullopt;  ///< under what else the machine was said to do
};

/// "fetching wins from 900 tokens on (between 1 and 2,000 with ..), recomputing before: 32,768
/// tokens take 160 ms to fetch and 1.2 s to recompute."
[[nodiscard]] std::string contest_sentence(const Contest& contest,
                                           std::int64_t tokens,
                                           std::int64_t limit_tokens);

/// Decode steps under a scheme that rebuilds K or V, against plain reads, by batch.
struct DecodeArm {
  std::string scheme;
  std::vector<std::vector<Span>> pays;  ///< for each of kDecodeBatches
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

/// Whether the device holds the model and the prefix, and those that run beside it.
struct CrossoverFit {
  bool fits = true;
  std::int64_t needed_bytes = 0;  ///< of the fullest device
  std::int64_t capacity_bytes = 0;
};

struct CrossoverAnswer {
  CacheCase cache_case = {};
  SchemeLabel label = {};
  std::optional<CrossoverFit> fit = {};  ///< empty: the machine's memory is not known
  std::int64_t context_tokens = 0;
  std::int64_t limit_tokens = 0;  ///< lengths looked at
  std::vector<TierAnswer> tiers;
  std::vector<DecodeArm> decode;
  std::optional<BandwidthMap> map;
  std::optional<BandwidthMap> map_loaded;
  std::optional<BatchMap> batch_map;
  std::optional<BatchMap> batch_map_loaded;
  std::optional<Busy> busy;  ///< empty: nothing was said of it
  /// Of sequences that decode meanwhile: a step by itself, and one with a chunk of the recompute.
  double running_step_s = 0.0;
  double running_with_chunk_s = 0.0;
  std::string laws;
  std::string svg_file;  ///< written; empty: none
};

/// The tiers asked for, each with the way to it; every one that the machine has where none is
/// named.
[[nodiscard]] std::vector<TierLink> tiers_of(const Query& query,
                                             const LawSource& laws,
                                             const CrossoverOptions& options);

class CrossoverArms;

/// At most 10,000 cells of lengths and bandwidths; and those of prefixes at once, 1, 2, 4 ... 512.
[[nodiscard]] BandwidthMap bandwidth_map(CrossoverArms& arms,
                                         const TierLink& tier,
                                         std::int64_t limit_tokens,
                                         const Busy& busy);
[[nodiscard]] BatchMap batch_map(CrossoverArms& arms,
                                 const TierLink& tier,
                                 std::int64_t limit_tokens,
                                 const Busy& busy);

void print_crossover_json(Console& console, const Query& query, const CrossoverAnswer& answer);
void print_crossover(Console& console, const Query& query, const CrossoverAnswer& answer);

/// A map in characters, and as a picture: of one map, or of an idle machine's and a loaded one's.
void print_map(Console& console, const BandwidthMap& map);
void print_map(Console& console, const BatchMap& map);
[[nodiscard]] std::string map_svg(const CrossoverAnswer& answer, const std::string& title);

}  // namespace kvfathom::cli
