// kvfathom crossover: for a cached prefix that is not in fast memory, fetch it or rebuild it?
#include "cli/crossover.h"

#include <algorithm>
#include <cmath>

#include "cli/calibrations.h"
#include "cli/commands.h"
#include "cli/crossover_arms.h"
#include "cli/crossover_measure.h"
#include "cli/format.h"
#include "cli/json_writer.h"
#include "cli/values.h"
#include "model/cache/request_text.h"
#include "model/error.h"
#include "model/io/file.h"
#include "model/latency/datasheet_laws.h"
#include "model/text/size.h"

namespace kvfathom::cli {
namespace {

constexpr std::int64_t kMostContext = std::int64_t{1} << 24;
constexpr std::int64_t kDefaultContext = 32768;
constexpr double kMostLoad = 0.95;

struct TierRow {
  Tier tier;
  const char* name;
  OpKind kind;
};
constexpr TierRow kTiers[] = {{Tier::host, "host", OpKind::host_transfer},
                              {Tier::nvme, "nvme", OpKind::file_read},
                              {Tier::network, "network", OpKind::network_transfer}};

/// A prefix comes over a network as one transfer: 1.8 ms until it flows, then the line's share, as
/// Mooncake logs it from 49 MB to 12.6 GB (data/truth/transfers.tsv).
constexpr Seconds kNetworkHandshake{1.8e-3};
constexpr Bytes kWholePrefix{1e18};

/// The tier's link as the laws price it, or as the person describes it.
TierLink tier_link(const TierRow& row, const LawSource& laws, const CrossoverOptions& options) {
  const PricedClass priced = laws.law({.kind = row.kind}, false);
  TierLink tier{.tier = row.tier,
                .name = row.name,
                .link = {.bandwidth = 0.5 * *priced.law.bandwidth,  // laws count both sides
                         .call = priced.law.fixed + priced.launch},
                .log_error = priced.log_error,
                .provenance = priced.provenance};
  if (row.tier == Tier::network && !options.piece) {
    tier.link.call = kNetworkHandshake;
    tier.link.piece = kWholePrefix;
  }
  if (options.bandwidth) {
    tier.link.bandwidth = parse_bandwidth(*options.bandwidth, "--bandwidth");
    tier.log_error = 0.0;
    tier.provenance = Provenance::exact;  // the person's own figure
  }
  if (options.call) {
    constexpr std::int64_t kMostMicroseconds = 1'000'000;
    tier.link.call = Seconds(
        1e-6 * static_cast<double>(parse_count("--call", *options.call, 0, kMostMicroseconds)));
  }
  if (options.piece) {
    tier.link.piece = Bytes(static_cast<double>(parse_size(*options.piece, "--piece")));
  }
  return tier;
}

}  // namespace

std::vector<TierLink> tiers_of(const Query& query,
                               const LawSource& laws,
                               const CrossoverOptions& options) {
  const HardwareSpec& device = query.machine.devices.front();
  std::vector<TierLink> tiers;
  const std::string wanted = options.tier ? lower(*options.tier) : "";
  for (const TierRow& row : kTiers) {
    const bool same_memory = row.tier == Tier::host && device.unified_memory;
    const bool is_named = wanted == row.name || (wanted == "net" && row.tier == Tier::network);
    if (is_named && same_memory) {
      throw InputError("--tier",
                       "'host', which is the memory that " + query.machine.name + " computes from",
                       "nvme or network");
    }
    if (is_named) {
      return {tier_link(row, laws, options)};
    }
    if (!same_memory) {
      tiers.push_back(tier_link(row, laws, options));
    }
  }
  if (!wanted.empty()) {
    throw InputError("--tier", "'" + printable(wanted) + "'", "host, nvme or network");
  }
  if (options.bandwidth) {
    throw InputError("--bandwidth", "given without --tier", "name the tier that it is of");
  }
  return tiers;
}

namespace {

std::string arm_name(bool fetch) {
  return fetch ? "fetching" : "recomputing";
}

std::string spoken(const TierLink& tier) {
  return tier.tier == Tier::nvme ? "NVMe" : "the " + tier.name;
}

/// "Fetching wins from 900 tokens on: 32,768 tokens take 160 ms against 1.2 s."
std::string sentence_of(const TierAnswer& answer, std::int64_t tokens, std::int64_t limit) {
  const std::vector<Reign>& reigns = answer.reigns;
  std::string text = "From " + spoken(answer.tier) + " ";
  if (reigns.size() == 1) {
    text +=
        arm_name(reigns.front().fetch) + " wins at every length up to " + counted(limit, "token");
  } else if (reigns.size() == 2) {
    text += arm_name(reigns[1].fetch) + " wins from " + counted(reigns[1].from_tokens, "token") +
            " on, " + arm_name(reigns[0].fetch) + " before";
  } else {
    text += arm_name(reigns.back().fetch) + " wins from " +
            counted(reigns.back().from_tokens, "token") + " on and below " +
            thousands(reigns[1].from_tokens) + ", " + arm_name(reigns[1].fetch) + " in between";
  }
  return text + ": " + counted(tokens, "token") + (tokens == 1 ? " takes " : " take ") +
         duration(answer.arms[0].time_s.value) + " to fetch and " +
         duration(answer.arms[1].time_s.value) + " to recompute.";
}

/// From where on fetching wins for good; nothing if it never does.
std::optional<std::int64_t> lasting(const std::vector<Reign>& reigns) {
  return reigns.back().fetch ? std::optional(reigns.back().from_tokens) : std::nullopt;
}

std::vector<Reign> reigns_of(CrossoverArms& arms,
                             const TierLink& tier,
                             const Load& load,
                             std::int64_t limit,
                             double Estimate::*fetch_bound = &Estimate::value,
                             double Estimate::*recompute_bound = &Estimate::value) {
  return reigns([&](std::int64_t n) { return arms.fetch(tier, n, load).*fetch_bound; },
                [&](std::int64_t n) { return arms.recompute(n, load).*recompute_bound; },
                limit);
}

TierAnswer tier_answer(CrossoverArms& arms,
                       const TierLink& tier,
                       const CrossoverOptions& options,
                       std::int64_t tokens,
                       std::int64_t limit) {
  TierAnswer answer{.tier = tier};
  answer.arms = arms.arms(tier, tokens, answer.split);
  answer.reigns = reigns_of(arms, tier, {}, limit);
  answer.crossover_low = lasting(reigns_of(arms, tier, {}, limit, &Estimate::low, &Estimate::high));
  answer.crossover_high =
      lasting(reigns_of(arms, tier, {}, limit, &Estimate::high, &Estimate::low));
  if (options.load || options.queued) {
    Load load = arms.load();
    if (options.queued) {
      const Bytes queued(static_cast<double>(parse_size(*options.queued, "--queued")));
      load.queued = transfer_time(tier.link, queued);
    }
    answer.reigns_loaded = reigns_of(arms, tier, load, limit);
  }
  answer.crossover_bandwidth_bytes_per_s =
      bandwidth_for(tier.link, arms.moved(tokens), Seconds(answer.arms[1].time_s.value)).value();
  answer.sentence = sentence_of(answer, tokens, limit);
  return answer;
}

/// Schemes that rebuild K or V at every step, against plain reads of the device's memory.
std::vector<DecodeArm> decode_arms(const Query& query, std::int64_t limit) {
  std::vector<DecodeArm> all;
  const CacheCase native{.k = query.settings.cache_type_k, .v = query.settings.cache_type_v};
  for (const char* name : {"k-only", "head-linear", "residual", "xquant", "kivi"}) {
    CacheCase other = native;
    const cache::ParsedScheme parsed = cache::parse_scheme(name);
    other.scheme = parsed.request.id;
    other.parameters = parsed.request.parameters;
    try {
      cache::require_applicable(query.model.spec, request_of(other));
      DecodeArm arm{.scheme = name, .pays_from_tokens = {}};
      for (const std::int64_t batch : kDecodeBatches) {
        SpeedPlan plain(query, native);
        SpeedPlan plan(query, other);
        arm.pays_from_tokens.push_back(pays_from(plan, plain, batch, limit));
      }
      all.push_back(std::move(arm));
    } catch (const InputError&) {
      continue;  // does not apply to this model
    }
  }
  return all;
}

/// Lengths from one token to `limit`, each by the same factor longer.
std::vector<std::int64_t> map_lengths(std::int64_t limit, int n) {
  std::vector<std::int64_t> lengths;
  for (int i = 0; i < n; ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(n - 1);
    lengths.push_back(std::llround(std::pow(static_cast<double>(limit), share)));
  }
  return lengths;
}

BandwidthMap map_of(CrossoverArms& arms, const TierLink& tier, std::int64_t limit, int n) {
  constexpr double kSlowest = 1e8;
  constexpr double kFastest = 1e12;
  BandwidthMap map{.lengths_tokens = map_lengths(limit, n), .rows = {}, .ratios = {}};
  std::vector<double> recompute_s;
  for (const std::int64_t length : map.lengths_tokens) {
    recompute_s.push_back(arms.recompute(length, {}).value);
  }
  TierLink at = tier;
  for (int i = 0; i < n; ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(n - 1);
    map.rows.push_back(kSlowest * std::pow(kFastest / kSlowest, 1.0 - share));
    at.link.bandwidth = BytesPerSecond(map.rows.back());
    for (std::size_t column = 0; column < map.lengths_tokens.size(); ++column) {
      map.ratios.push_back(recompute_s[column] /
                           arms.fetch(at, map.lengths_tokens[column], {}).value);
    }
  }
  return map;
}

/// From one prefix to 512 at once, four steps a doubling.
BatchMap batch_map_of(CrossoverArms& arms, const TierLink& tier, std::int64_t limit, int n) {
  constexpr int kSteps = 36;
  BatchMap map{.lengths_tokens = map_lengths(limit, n), .rows = {}, .ratios = {}};
  for (int i = 0; i <= kSteps; ++i) {
    const std::int64_t batch = std::llround(std::exp2(i / 4.0));
    if (!map.rows.empty() && map.rows.back() == batch) {
      continue;
    }
    map.rows.push_back(batch);
    for (const std::int64_t length : map.lengths_tokens) {
      map.ratios.push_back(arms.recompute_many_s(length, batch) /
                           arms.fetch_many_s(tier, length, batch));
    }
  }
  return map;
}

CrossoverAnswer answer_of(const Query& query, const Options& options) {
  const std::int64_t trained = query.model.spec.trained_context_tokens;
  CrossoverAnswer answer;
  answer.limit_tokens = trained > 0 ? trained : kMostContext / 16;
  answer.context_tokens = options.engine.context
                              ? parse_count("--context", *options.engine.context, 1, kMostContext)
                              : std::min(kDefaultContext, answer.limit_tokens);
  answer.limit_tokens = std::max(answer.limit_tokens, answer.context_tokens);
  Load load;
  if (options.crossover.load) {
    answer.load = parse_share("--load", *options.crossover.load, kMostLoad);
    load.compute_share = answer.load;
    load.link_share = answer.load;
  }
  CrossoverArms arms(query, load);
  for (const TierLink& tier : tiers_of(query, arms.laws(), options.crossover)) {
    answer.tiers.push_back(
        tier_answer(arms, tier, options.crossover, answer.context_tokens, answer.limit_tokens));
  }
  answer.decode = decode_arms(query, answer.limit_tokens);
  constexpr int kCells = 100;
  const TierLink& first = answer.tiers.front().tier;
  if (options.crossover.map || (options.crossover.svg && !options.crossover.batch_map)) {
    answer.map = map_of(arms, first, answer.limit_tokens, kCells);
  }
  if (options.crossover.batch_map) {
    answer.batch_map = batch_map_of(arms, first, answer.limit_tokens, kCells);
  }
  SpeedPlan plan(query, {.k = query.settings.cache_type_k, .v = query.settings.cache_type_v});
  if (options.crossover.running) {
    constexpr std::int64_t kMostRunning = 4096;
    answer.running = parse_count("--running", *options.crossover.running, 1, kMostRunning);
    answer.running_step_s = plan.decode(answer.context_tokens, *answer.running, false).time_s.value;
    const std::int64_t chunk = std::min(chunk_tokens(query), answer.context_tokens);
    answer.running_with_chunk_s =
        answer.running_step_s +
        arms.prefix().recompute_behind(chunk, answer.context_tokens - chunk).value;
  }
  static_cast<void>(plan.decode(answer.context_tokens, 1, false));
  answer.laws = plan.laws_sentence();
  return answer;
}

Json count_or_null(const std::optional<std::int64_t>& n) {
  return n ? Json(*n) : Json(nullptr);
}

Json reigns_json(const std::vector<Reign>& reigns) {
  Json json = Json::array();
  for (const Reign& reign : reigns) {
    json.push_back(
        {{"from_tokens", reign.from_tokens}, {"winner", reign.fetch ? "fetch" : "recompute"}});
  }
  return json;
}

Json case_json(const TierAnswer& answer) {
  Json arms = Json::array();
  for (const Arm& arm : answer.arms) {
    arms.push_back({{"arm", arm.id},
                    {"name", arm.name},
                    {"how", text_or_null(arm.how)},
                    {"moved_bytes", arm.moved_bytes},
                    {"time_s", estimate_json(arm.time_s)},
                    {"exact", arm.exact}});
  }
  const double bandwidth = answer.crossover_bandwidth_bytes_per_s;
  return {{"tier", answer.tier.name},
          {"bandwidth_bytes_per_s", answer.tier.link.bandwidth.value()},
          {"scheme", "native"},
          {"fetch_s", estimate_json(answer.arms[0].time_s)},
          {"recompute_s", estimate_json(answer.arms[1].time_s)},
          {"crossover_tokens", count_or_null(lasting(answer.reigns))},
          {"crossover_tokens_low", count_or_null(answer.crossover_low)},
          {"crossover_tokens_high", count_or_null(answer.crossover_high)},
          {"crossover_bandwidth_bytes_per_s", bandwidth > 0.0 ? Json(bandwidth) : Json(nullptr)},
          {"best_split",
           {{"fetched_tokens", answer.split.fetched_tokens},
            {"recomputed_tokens", answer.split.recomputed_tokens},
            {"time_s", answer.split.time_s}}},
          {"reigns", reigns_json(answer.reigns)},
          {"reigns_loaded", reigns_json(answer.reigns_loaded)},
          {"arms", std::move(arms)},
          {"sentence", answer.sentence}};
}

Json json_of(const Query& query, const CrossoverAnswer& answer) {
  Json json = document("crossover");
  json["model"] = model_json(query.model.spec);
  json["gpu"] = {{"name", query.machine.name}, {"count", query.machine.n_gpus}};
  json["engine"] = engine_json(query);
  json["context_tokens"] = answer.context_tokens;
  json["cases"] = Json::array();
  for (const TierAnswer& tier : answer.tiers) {
    json["cases"].push_back(case_json(tier));
  }
  json["decode"] = Json::array();
  for (const DecodeArm& arm : answer.decode) {
    for (std::size_t i = 0; i < arm.pays_from_tokens.size(); ++i) {
      json["decode"].push_back({{"scheme", arm.scheme},
                                {"batch", kDecodeBatches[i]},
                                {"pays_from_tokens", count_or_null(arm.pays_from_tokens[i])}});
    }
  }
  if (answer.running) {
    json["running"] = {{"sequences", *answer.running},
                       {"step_s", answer.running_step_s},
                       {"step_with_chunk_s", answer.running_with_chunk_s}};
  }
  if (answer.map) {
    json["map"] = {{"lengths_tokens", answer.map->lengths_tokens},
                   {"bandwidths_bytes_per_s", answer.map->rows},
                   {"recompute_over_fetch", answer.map->ratios}};
  }
  if (answer.batch_map) {
    json["batch_map"] = {{"lengths_tokens", answer.batch_map->lengths_tokens},
                         {"batches", answer.batch_map->rows},
                         {"recompute_over_fetch", answer.batch_map->ratios}};
  }
  json["laws"] = answer.laws;
  return json;
}

}  // namespace

int crossover(const Options& options, Console& console) {
  if (options.crossover.measure) {
    return crossover_measure(options, console);
  }
  if (options.crossover.lengths || options.crossover.seconds) {
    throw InputError(options.crossover.lengths ? "--lengths" : "--seconds",
                     "given without --measure",
                     "add it, or leave this out");
  }
  Query query = read_query(options);
  if (query.machine.devices.empty()) {
    throw InputError("--gpu", "missing", "give --gpu NAME, or --memory and --memory-bandwidth");
  }
  choose_calibration(options, query);
  if (!peak_rate(query.machine.devices.front(), DType::bf16)) {
    throw InputError("--gpu",
                     "no peak rate is known of " + query.machine.name,
                     "name a device of the catalog: recomputing has no time without it");
  }
  const CrossoverAnswer answer = answer_of(query, options);
  if (options.crossover.svg) {
    const std::string title = query.model.spec.name + " on " + query.machine.name;
    write_file(*options.crossover.svg,
               answer.batch_map ? map_svg(*answer.batch_map, title) : map_svg(*answer.map, title));
  }
  if (console.json) {
    print_json(console, json_of(query, answer));
  } else {
    print_crossover(console, query, answer);
  }
  return 0;
}

}  // namespace kvfathom::cli
