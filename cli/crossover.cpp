// kvfathom crossover: for a cached prefix that is not in fast memory, fetch it or rebuild it?
#include "cli/crossover.h"

#include <algorithm>
#include <memory>
#include <string>

#include "cli/calibrations.h"
#include "cli/commands.h"
#include "cli/crossover_arms.h"
#include "cli/crossover_measure.h"
#include "cli/device_shares.h"
#include "cli/format.h"
#include "cli/smallest_gpu.h"
#include "cli/values.h"
#include "model/cache/request_text.h"
#include "model/error.h"
#include "model/io/file.h"
#include "model/memory/inverse.h"
#include "model/rounding.h"
#include "model/text/size.h"

namespace kvfathom::cli {
namespace {

constexpr std::int64_t kMostContext = std::int64_t{1} << 24;
constexpr std::int64_t kDefaultContext = 32768;
constexpr double kMostLoad = 0.95;

std::vector<Reign> reigns_of(CrossoverArms& arms,
                             const TierLink& tier,
                             const Busy& busy,
                             std::int64_t limit,
                             double Estimate::*fetch_bound = &Estimate::value,
                             double Estimate::*recompute_bound = &Estimate::value) {
  return reigns([&](std::int64_t n) { return arms.fetch(tier, n, busy).*fetch_bound; },
                [&](std::int64_t n) { return arms.recompute(n, busy).*recompute_bound; },
                limit);
}

Contest contest_of(CrossoverArms& arms,
                   const TierLink& tier,
                   const Busy& busy,
                   std::int64_t tokens,
                   std::int64_t limit) {
  Contest contest{.fetch_s = arms.fetch(tier, tokens, busy),
                  .recompute_s = arms.recompute(tokens, busy),
                  .reigns = reigns_of(arms, tier, busy, limit)};
  const auto lasting = [&](double Estimate::*of_fetch, double Estimate::*of_recompute) {
    return crossover_tokens({.fetch_s = {},
                             .recompute_s = {},
                             .reigns = reigns_of(arms, tier, busy, limit, of_fetch, of_recompute)});
  };
  contest.crossover_low = lasting(&Estimate::low, &Estimate::high);
  contest.crossover_high = lasting(&Estimate::high, &Estimate::low);
  contest.even_bandwidth_bytes_per_s = arms.even_bandwidth(tier, tokens, busy).value();
  return contest;
}

TierAnswer tier_answer(CrossoverArms& arms, const TierLink& tier, const CrossoverAnswer& answer) {
  TierAnswer of_tier{.tier = tier};
  const auto ways = [&](const Busy& busy, const std::string& where) {
    Ways all{.contest = contest_of(arms, tier, busy, answer.context_tokens, answer.limit_tokens)};
    all.contest.sentence =
        where + contest_sentence(all.contest, answer.context_tokens, answer.limit_tokens);
    all.arms = arms.arms(tier, answer.context_tokens, busy, all.split);
    return all;
  };
  of_tier.idle = ways({}, tier.tier == Tier::nvme ? "From NVMe " : "From the " + tier.name + " ");
  if (answer.busy) {
    of_tier.loaded = ways(*answer.busy, "Under the load ");
  }
  return of_tier;
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
      DecodeArm arm{.scheme = name, .pays = {}};
      SpeedPlan plain(query, native);
      SpeedPlan plan(query, other);
      for (const std::int64_t batch : kDecodeBatches) {
        arm.pays.push_back(pays_at(plan, plain, batch, limit));
      }
      all.push_back(std::move(arm));
    } catch (const InputError&) {
      continue;  // does not apply to this model
    }
  }
  return all;
}

/// What else the machine was said to do.
std::optional<Busy> busy_of(const Query& query, const Options& options, std::int64_t context) {
  const CrossoverOptions& asked = options.crossover;
  if (!asked.load && !asked.link_load && !asked.queued && !asked.running) {
    return std::nullopt;
  }
  Busy busy;
  if (asked.load) {
    busy.compute_share = parse_share("--load", *asked.load, kMostLoad);
  }
  if (asked.link_load) {
    busy.link_share = parse_share("--link-load", *asked.link_load, kMostLoad);
  }
  if (asked.queued) {
    busy.queued = Bytes(static_cast<double>(parse_size(*asked.queued, "--queued")));
  }
  if (asked.running) {
    constexpr std::int64_t kMostRunning = 4096;
    const std::int64_t replicas = query.settings.data_parallel;
    const std::int64_t n = parse_count("--running", *asked.running, 1, kMostRunning);
    const std::int64_t step_tokens = chunk_tokens(query);
    busy.running = {.n_sequences = divide_up(n, replicas), .n_cached_tokens = context - 1};
    if (busy.running.n_sequences >= step_tokens) {
      throw InputError("--running",
                       counted(n, "sequence") + " leave no token of a step's " +
                           thousands(step_tokens) + " to recompute with",
                       "give fewer, or larger steps");
    }
  }
  return busy;
}

/// By the engine's memory, with the sequences that run beside; nothing where it is not known.
std::optional<CrossoverFit> fit_of(const Query& query, const CrossoverAnswer& answer) {
  const auto plan_at = [&](std::int64_t sequences) {
    EngineSettings settings = query.settings;
    settings.sequences = sequences;
    return plan_of(query, answer.cache_case, settings);
  };
  const std::int64_t running = answer.busy ? answer.busy->running.n_sequences : 0;
  std::unique_ptr<MemoryPlan> plan;
  try {
    plan = plan_at(query.settings.sequences + running);
  } catch (const InputError& error) {
    if (running == 0) {
      throw;
    }
    throw InputError("--running", error.found(), error.allowed());
  }
  if (!query.machine.known()) {
    return std::nullopt;
  }
  const MemoryLedger ledger = plan->evaluate(answer.context_tokens).ledger;
  const Device device = fullest_device(ledger, query.machine);
  CrossoverFit fit{.fits = fits(ledger, query.machine.capacities),
                   .needed_bytes = ledger.total(device).high_bytes};
  for (const Capacity& capacity : query.machine.capacities) {
    fit.capacity_bytes = capacity.device == device ? capacity.bytes : fit.capacity_bytes;
  }
  return fit;
}

/// What is fetched: not where it is, which is what is asked.
CacheCase case_asked(const Query& query, const Options& options) {
  const CacheCase one = single_case(query, options);
  if (one.offload) {
    throw InputError("--scheme",
                     "offload: where the prefix is, the tier says",
                     "give the scheme it is stored in, and --tier host, nvme or network");
  }
  return one;
}

CrossoverAnswer answer_of(const Query& query, const Options& options) {
  const std::int64_t trained = query.model.spec.trained_context_tokens;
  CrossoverAnswer answer;
  answer.cache_case = case_asked(query, options);
  answer.limit_tokens = trained > 0 ? trained : kMostContext / 16;
  answer.context_tokens = options.engine.context
                              ? parse_count("--context", *options.engine.context, 1, kMostContext)
                              : std::min(kDefaultContext, answer.limit_tokens);
  answer.limit_tokens = std::max(answer.limit_tokens, answer.context_tokens);
  answer.busy = busy_of(query, options, answer.context_tokens);
  answer.label = label_of(query, answer.cache_case, *plan_of(query, answer.cache_case));
  answer.fit = fit_of(query, answer);
  CrossoverArms arms(query, answer.cache_case);
  for (const TierLink& tier : tiers_of(query, arms.laws(), options.crossover)) {
    answer.tiers.push_back(tier_answer(arms, tier, answer));
  }
  answer.decode = decode_arms(query, answer.limit_tokens);
  const TierLink& first = answer.tiers.front().tier;
  if (options.crossover.map || (options.crossover.svg && !options.crossover.batch_map)) {
    answer.map = bandwidth_map(arms, first, answer.limit_tokens, {});
    if (answer.busy) {
      answer.map_loaded = bandwidth_map(arms, first, answer.limit_tokens, *answer.busy);
    }
  }
  if (options.crossover.batch_map) {
    answer.batch_map = batch_map(arms, first, answer.limit_tokens, {});
    if (answer.busy) {
      answer.batch_map_loaded = batch_map(arms, first, answer.limit_tokens, *answer.busy);
    }
  }
  if (answer.busy && answer.busy->running.n_sequences > 0) {
    const Running& running = answer.busy->running;
    const std::int64_t chunk =
        std::min(chunk_tokens(query) - running.n_sequences, answer.context_tokens);
    answer.running_step_s = arms.prefix().step_of(running).value;
    answer.running_with_chunk_s =
        arms.prefix().step_beside(chunk, answer.context_tokens - chunk, running).value;
  }
  SpeedPlan plan(query, answer.cache_case);
  static_cast<void>(plan.decode(answer.context_tokens, 1, false));
  answer.laws = plan.laws_sentence();
  return answer;
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
  constexpr const char* kDevices =
      "give --gpu NAME of the catalog, --gpu local, or a hardware JSON with peak rates: "
      "recomputing has no time without them";
  Query query = read_query(options);
  if (query.machine.devices.empty()) {
    throw InputError("--gpu", "missing", kDevices);
  }
  if (query.settings.gpu_layers && *query.settings.gpu_layers <= n_layers(query.model.spec)) {
    throw Unsupported("--gpu-layers",
                      "layers on the host keep their cached tokens there: nothing is fetched",
                      "leave it out; experts may stay there: --cpu-moe-layers N");
  }
  choose_calibration(options, query);
  if (!knows_peak_rates(query)) {
    throw InputError("--gpu", "no peak rate is known of " + query.machine.name, kDevices);
  }
  CrossoverAnswer answer = answer_of(query, options);
  if (options.crossover.svg) {
    const TierAnswer& first = answer.tiers.front();
    const std::string title =
        query.model.spec.name + " on " + query.machine.name + " from " + first.tier.name;
    write_file(*options.crossover.svg, map_svg(answer, title));
    answer.svg_file = *options.crossover.svg;
  }
  if (console.json) {
    print_crossover_json(console, query, answer);
  } else {
    print_crossover(console, query, answer);
  }
  return 0;
}

}  // namespace kvfathom::cli
