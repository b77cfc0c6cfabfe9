// kvfathom speed: how long a prompt and a token take, and what they wait for.
#include "cli/speed.h"

#include <algorithm>

#include "cli/auto_placement.h"
#include "cli/calibrations.h"
#include "cli/commands.h"
#include "cli/device_shares.h"
#include "cli/format.h"
#include "cli/json_writer.h"
#include "cli/speed_plan.h"
#include "cli/values.h"
#include "model/error.h"

namespace kvfathom::cli {
namespace {

constexpr std::int64_t kMostContext = std::int64_t{1} << 32;
constexpr std::int64_t kDefaultContext = 32768;  // of models that name no trained length
constexpr std::int64_t kLargestBatch = 256;

std::int64_t context_of(const Query& query, const Options& options) {
  if (options.engine.context) {
    return parse_count("--context", *options.engine.context, 1, kMostContext);
  }
  const std::int64_t trained = query.model.spec.trained_context_tokens;
  return trained > 0 ? trained : kDefaultContext;
}

/// Four to the power of n, from 1024 on, and the context itself.
std::vector<std::int64_t> contexts_up_to(std::int64_t context_tokens) {
  constexpr std::int64_t kFirst = 1024;
  constexpr std::int64_t kStep = 4;
  std::vector<std::int64_t> contexts;
  for (std::int64_t tokens = kFirst; tokens < context_tokens; tokens *= kStep) {
    contexts.push_back(tokens);
  }
  contexts.push_back(context_tokens);
  return contexts;
}

/// --draft-tokens K, or --mtp K, and how often they are right.
std::optional<Speculation> speculation_of(const Options& options) {
  const Text& own = options.draft.own_block;
  if (own && options.draft_tokens) {
    throw InputError("--mtp", "given together with --draft-tokens", "give one of them");
  }
  const Text& drafted = own ? own : options.draft_tokens;
  if (!drafted && !options.acceptance && !options.draft.model) {
    return std::nullopt;
  }
  if (!drafted || !options.acceptance) {
    throw InputError(drafted ? "--acceptance" : "--draft-tokens",
                     "missing",
                     "give both: --draft-tokens K --acceptance A");
  }
  constexpr std::int64_t kMostDrafted = 64;
  return Speculation{
      .n_draft_tokens = parse_count(own ? "--mtp" : "--draft-tokens", *drafted, 1, kMostDrafted),
      .acceptance = parse_share("--acceptance", *options.acceptance, 1.0)};
}

SpeedPoint point_of(SpeedPlan& plan, Phase phase, std::int64_t context, std::int64_t sequences) {
  SpeedPoint point{.phase = phase, .context_tokens = context, .sequences = sequences};
  point.step =
      phase == Phase::prefill ? plan.prompt(context, true) : plan.decode(context, sequences, true);
  point.tokens_per_sequence = plan.tokens_per_step();
  for (const OpTime& one : point.step.ops) {
    point.ops.push_back({plan.ops()[one.op], one.time, one.bound});
  }
  return point;
}

/// Whether the engine's memory holds it; a machine without a capacity holds everything.
bool fits_memory(const Query& query,
                 const CacheCase& cache_case,
                 std::int64_t context,
                 std::int64_t sequences) {
  EngineSettings settings = query.settings;
  settings.sequences = sequences;
  try {
    const auto plan = plan_of(query, cache_case, settings);
    return fits(plan->evaluate(context).ledger, query.machine.capacities);
  } catch (const InputError&) {
    return false;  // more sequences than the engine takes
  }
}

/// `--auto` places for the context asked for; every row is of that placement.
Query placed_at(const Query& query, const CacheCase& cache_case, const SpeedAnswer& answer) {
  return query.auto_context_tokens
             ? placed_as(query, auto_fitted(query, cache_case, answer.context_tokens))
             : query;
}

SpeedCase priced(const Query& query, const CacheCase& cache_case, const SpeedAnswer& answer) {
  SpeedPlan plan(query, cache_case, answer.speculation);
  SpeedCase result{.cache_case = cache_case,
                   .label = label_of(query, cache_case, *plan_of(query, cache_case))};
  for (const std::int64_t context : contexts_up_to(answer.context_tokens)) {
    const bool fit = fits_memory(query, cache_case, context, answer.sequences);
    if (answer.prompts) {
      result.by_context.push_back(point_of(plan, Phase::prefill, context, 1));
      result.by_context.back().fits = fit;
    }
    result.by_context.push_back(point_of(plan, Phase::decode, context, answer.sequences));
    result.by_context.back().fits = fit;
  }
  for (std::int64_t batch = 1; batch <= kLargestBatch; batch *= 2) {
    result.by_batch.push_back(point_of(plan, Phase::decode, answer.context_tokens, batch));
    result.by_batch.back().fits = fits_memory(query, cache_case, answer.context_tokens, batch);
    if (!result.by_batch.back().fits) {
      break;
    }
  }
  result.laws = plan.laws_sentence();
  return result;
}

void compare_with_first(const Query& query, SpeedAnswer& answer) {
  const CacheCase& first_case = answer.cases.front().cache_case;
  SpeedPlan first(placed_at(query, first_case, answer), first_case, answer.speculation);
  for (std::size_t i = 1; i < answer.cases.size(); ++i) {
    const CacheCase& other = answer.cases[i].cache_case;
    SpeedPlan plan(placed_at(query, other, answer), other, answer.speculation);
    answer.cases[i].pays = pays_at(plan, first, answer.sequences, answer.context_tokens);
  }
}

/// One case, unless schemes were named: `all` compares.
std::vector<CacheCase> speed_cases(const Query& query, const Options& options) {
  if (options.engine.schemes.empty()) {
    return {single_case(query, options)};
  }
  std::vector<CacheCase> cases = fit_cases(query, options);
  // Beside what the engine does not run `fit` says again what native takes: it is as quick.
  std::erase_if(cases, [](const CacheCase& one) {
    return one.by_formula && one.scheme == CacheScheme::native && !one.offload;
  });
  const CacheCase native{.k = cases.front().k, .v = cases.front().v};
  if (std::find(cases.begin(), cases.end(), native) == cases.end()) {
    cases.insert(cases.begin(), native);  // what the others are compared with
  }
  return cases;
}

/// The TDP of all GPUs together.
double watts_of(const Machine& machine) {
  double sum = 0.0;
  for (const HardwareSpec& device : machine.devices) {
    const bool is_host = machine.n_gpus == 0 && device.kind != "cpu";
    if (!device.tdp_w || is_host) {
      throw InputError(
          "--energy", "no TDP is known of " + (is_host ? "the host" : device.name), "leave it out");
    }
    sum += *device.tdp_w;
  }
  return sum;
}

Json point_json(const SpeedPoint& point, const SpeedCase& one, const SpeedAnswer& answer) {
  const Estimate& time = point.step.time_s;
  Json ops = Json::array();
  for (const SpeedOp& op : point.ops) {
    ops.push_back({{"kind", name(op.op.op_class.kind)},
                   {"part", op.op.part},
                   {"layers", op.op.n_times},
                   {"bytes", (op.op.cost.read + op.op.cost.written).value()},
                   {"flops", op.op.cost.flops.value()},
                   {"time_s", op.time.value()},
                   {"bound_by", name(op.bound)}});
  }
  Json json{{"phase", point.phase == Phase::prefill ? "prefill" : "decode"},
            {"scheme", one.label.spelling},
            {"context_tokens", point.context_tokens},
            {"batch", point.sequences},
            {"time_s", estimate_json(time)},
            {"tokens_per_s", estimate_json(point.tokens_per_s())},
            {"bound_by", name(point.step.bound)},
            {"fits", point.fits},
            {"ops", std::move(ops)}};
  if (point.phase == Phase::decode) {
    json["tokens_per_step"] = point.tokens_per_sequence;
  }
  if (answer.watts) {
    json["energy_j_per_token"] = *answer.watts / point.tokens_per_s().value;
  }
  return json;
}

Json json_of(const Query& query, const SpeedAnswer& answer) {
  Json json = document("speed");
  json["model"] = model_json(query.model.spec);
  json["gpu"] = {{"name", query.machine.name}, {"count", query.machine.n_gpus}};
  json["engine"] = engine_json(query);
  json["points"] = Json::array();
  json["schemes"] = Json::array();
  for (const SpeedCase& one : answer.cases) {
    Json scheme{{"scheme", scheme_json(one.label)}, {"laws", one.laws}};
    const auto from = pays_from(one.pays);
    scheme["pays_from_tokens"] = from ? Json(*from) : Json(nullptr);
    scheme["pays_at"] = spans_json(one.pays);
    json["schemes"].push_back(std::move(scheme));
    for (const auto* points : {&one.by_context, &one.by_batch}) {
      for (const SpeedPoint& point : *points) {
        json["points"].push_back(point_json(point, one, answer));
      }
    }
  }
  return json;
}

/// Whether something fits of what was asked for: the context that was named, or any.
bool fits(const SpeedAnswer& answer, bool is_named) {
  return std::ranges::any_of(answer.cases, [&](const SpeedCase& one) {
    return is_named ? one.by_context.back().fits
                    : std::ranges::any_of(one.by_context, &SpeedPoint::fits);
  });
}

}  // namespace

double SpeedPoint::tokens() const {
  return phase == Phase::prefill ? static_cast<double>(context_tokens)
                                 : tokens_per_sequence * static_cast<double>(sequences);
}

double SpeedPoint::tpot_s() const {
  return step.time_s.value / tokens_per_sequence;
}

Estimate SpeedPoint::tokens_per_s() const {
  return per_second(tokens(), step.time_s);
}

int speed(const Options& options, Console& console) {
  Query query = read_query(options);
  if (query.machine.devices.empty()) {
    throw InputError("--gpu", "missing", "give --gpu NAME, or --memory SIZE with --bandwidth");
  }
  choose_calibration(options, query);
  SpeedAnswer answer{.context_tokens = context_of(query, options),
                     .sequences = query.settings.sequences,
                     .prompts = knows_peak_rates(query),
                     .speculation = speculation_of(options)};
  if (options.energy) {
    answer.watts = watts_of(query.machine);
  }
  for (const CacheCase& cache_case : speed_cases(query, options)) {
    answer.cases.push_back(priced(placed_at(query, cache_case, answer), cache_case, answer));
  }
  compare_with_first(query, answer);
  if (console.json) {
    print_json(console, json_of(query, answer));
  } else {
    print_speed(console, query, answer);
  }
  return fits(answer, options.engine.context.has_value()) ? 0 : 1;
}

}  // namespace kvfathom::cli
