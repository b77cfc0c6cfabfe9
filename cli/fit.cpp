// kvfathom fit: the longest context, or the most sequences, that a machine holds.
#include "cli/fit.h"

#include <algorithm>

#include "cli/auto_placement.h"
#include "cli/calibrations.h"
#include "cli/commands.h"
#include "cli/fit_speed.h"
#include "cli/format.h"
#include "cli/headline.h"
#include "cli/json_writer.h"
#include "cli/quality.h"
#include "cli/sequence_count.h"
#include "cli/size_defaults.h"
#include "cli/values.h"
#include "model/error.h"

namespace kvfathom::cli {
namespace {

/// llama.cpp counts cells in 32 bits; no model is trained beyond this either.
constexpr std::int64_t kLongestContext = (std::int64_t{1} << 31) - 1;

FitAnswer finished(const Query& query,
                   const CacheCase& cache_case,
                   const MemoryPlan& plan,
                   std::int64_t context_tokens) {
  const std::int64_t shown = std::max<std::int64_t>(1, context_tokens);
  FitAnswer answer;
  const bool by_formula = cache_case.by_formula;
  answer.engine = by_formula ? "ideal" : versioned_engine(query);
  answer.beside = beside_the_model(query);
  answer.engine_name = by_formula ? "ideal" : query.engine->name;
  answer.engine_version = by_formula ? "" : query.engine_version;
  answer.cache_case = cache_case;
  answer.label = label_of(query, cache_case, plan);
  answer.label.quality = evidence(query, answer.label, cache_case, shown);
  answer.report = plan.evaluate(shown);
  answer.placement = plan.placement();
  answer.command = context_tokens > 0 ? plan.command(shown, shell_word(query.model.file)) : "";
  return answer;
}

/// Where the engine's steps on so large a device cost context: that, and what takes smaller ones.
void add_step_note(const Query& query,
                   const CacheCase& cache_case,
                   std::int64_t limit_tokens,
                   FitAnswer& answer) {
  const auto smaller = smaller_steps(query);
  if (!smaller || cache_case.by_formula) {
    return;
  }
  const auto plan = plan_of(smaller->query, cache_case);
  const auto longer = longest_context(*plan, query.machine.capacities, limit_tokens);
  if (longer.context_tokens > answer.max_context_tokens) {
    answer.label.notes.push_back(smaller->options + " would hold more: " + smaller->rule + ".");
  }
}

/// The longest of at most `limit_tokens`: the trained length, or less where llama.cpp's fit chose
/// less. The fit's choice fits, unless a ledger, against the rule, grows faster at first than
/// towards the trained length, between which the fit interpolates.
FitAnswer longest(const Query& query, const CacheCase& cache_case, std::int64_t limit_tokens) {
  const auto plan = plan_of(query, cache_case);
  const LongestContext found = longest_context(*plan, query.machine.capacities, limit_tokens);
  FitAnswer answer = finished(query, cache_case, *plan, found.context_tokens);
  answer.max_context_tokens = found.context_tokens;
  answer.sequences = query.settings.sequences;
  const bool chosen = limit_tokens < query.model.spec.trained_context_tokens;
  answer.limited_by =
      name(chosen && found.limited_by == LimitedBy::model ? LimitedBy::memory : found.limited_by);
  if (found.context_tokens > 0 && found.limited_by == LimitedBy::memory) {
    add_step_note(query, cache_case, limit_tokens, answer);
  }
  return answer;
}

std::int64_t limit_of(const Query& query, const Options& options) {
  const std::int64_t trained = query.model.spec.trained_context_tokens;
  return options.beyond_trained || trained <= 0 ? kLongestContext : trained;
}

FitAnswer most_sequences(const Query& query,
                         const CacheCase& cache_case,
                         std::int64_t context_tokens) {
  const std::int64_t best = count_sequences(query, cache_case, context_tokens);
  const auto plan = plan_for(query, cache_case, std::max<std::int64_t>(1, best));
  FitAnswer answer = finished(query, cache_case, *plan, best > 0 ? context_tokens : 0);
  if (best == 0) {
    answer.report = plan->evaluate(context_tokens);
    answer.limited_by = name(longest_context(*plan, query.machine.capacities, 1).limited_by);
    answer.limited_by = answer.limited_by == "model" ? "memory" : answer.limited_by;
  } else {
    answer.limited_by = limit_of_sequences(query, cache_case, best);
  }
  answer.max_context_tokens = best > 0 ? context_tokens : 0;
  answer.sequences = best;
  return answer;
}

Json answer_json(const Query& query, const Options& options, const FitAnswer& answer) {
  Json json{
      {"engine", {{"name", answer.engine_name}, {"version", text_or_null(answer.engine_version)}}},
      {"scheme", scheme_json(answer.label)},
      {"max_context_tokens", answer.max_context_tokens},
      {"limited_by", answer.limited_by},
      {"sequences", answer.sequences},
      {"cache_bytes_per_token", answer.report.cache.bytes_per_token},
      {"ledger", ledger_json(answer.report.ledger)},
      {"device_totals", device_totals_json(answer.report.ledger, query.machine)},
      {"placement", placement_json(answer.placement)},
      {"command", text_or_null(answer.command)}};
  if (options.with_speed) {
    add_speed_json(json, answer);
  }
  return json;
}

Json json_of(const Query& query,
             const Options& options,
             const std::vector<FitAnswer>& answers,
             const std::vector<RefusedEngine>& refused,
             const std::vector<LeftOut>& not_applicable) {
  Json json = document("fit");
  json["model"] = model_json(query.model.spec);
  json["gpu"] = {
      {"name", query.machine.name},
      {"count", query.machine.n_gpus},
      {"usable_bytes", query.machine.capacities.front().bytes - query.machine.reserve_bytes}};
  json["engine"] =
      query.engine != nullptr ? engine_json(query) : Json{{"name", "all"}, {"version", nullptr}};
  json["answers"] = Json::array();
  for (const FitAnswer& answer : answers) {
    json["answers"].push_back(answer_json(query, options, answer));
  }
  for (const RefusedEngine& one : refused) {
    json["refused"].push_back({{"engine", one.engine}, {"reason", one.reason}});
  }
  for (const LeftOut& scheme : not_applicable) {
    json["not_applicable"].push_back({{"scheme", scheme.scheme}, {"reason", scheme.reason}});
  }
  return json;
}

std::int64_t context_for_users(const Options& options) {
  if (!options.users && options.engine.context) {
    throw InputError("--context", "fit looks for it", "leave it out, or ask with --users");
  }
  if (!options.users) {
    return 0;
  }
  if (!options.engine.context) {
    throw InputError("--users", "--context is missing", "give the tokens of each: --context N");
  }
  if (options.engine.sequences) {
    throw InputError("--sequences", "--users looks for it", "leave it out");
  }
  return parse_count("--context", *options.engine.context, 1, kLongestContext);
}

/// `--with-speed` prices by what `speed` would.
Query calibrated(Query query, const Options& options) {
  if (options.with_speed && !query.machine.devices.empty()) {
    choose_calibration(options, query);
  }
  return query;
}

/// What a case is answered for: the query with its layers placed, where they are (else the query as
/// it is), and how far it may look.
struct Aim {
  std::optional<Query> placed;
  std::int64_t limit_tokens = 0;
};

Aim aim_of(const Query& query,
           const Options& options,
           const CacheCase& cache_case,
           std::int64_t users_context) {
  if (!query.auto_context_tokens) {
    return {std::nullopt, limit_of(query, options)};
  }
  if (cache_case.by_formula) {
    return {placed_as(query, {query.settings}), limit_of(query, options)};
  }
  const llama_cpp::Fitted chosen =
      auto_fitted(query, cache_case, options.users ? std::optional(users_context) : std::nullopt);
  return {placed_as(query, chosen), chosen.context_tokens};
}

FitAnswer answer_of(const Query& query,
                    const Options& options,
                    const CacheCase& cache_case,
                    std::int64_t users_context) {
  const Aim aim = aim_of(query, options, cache_case, users_context);
  const Query& of_case = aim.placed ? *aim.placed : query;
  FitAnswer answer = options.users ? most_sequences(of_case, cache_case, users_context)
                                   : longest(of_case, cache_case, aim.limit_tokens);
  if (options.with_speed) {
    add_speed(of_case, answer);
  }
  return answer;
}

std::vector<FitAnswer> answers_of(const Query& query,
                                  const Options& options,
                                  const std::vector<CacheCase>& cases,
                                  std::int64_t users_context) {
  std::vector<FitAnswer> answers;
  answers.reserve(cases.size());
  for (const CacheCase& cache_case : cases) {
    answers.push_back(answer_of(query, options, cache_case, users_context));
  }
  return answers;
}

/// What one engine of many is asked: what was named, else its own cache as it is by default.
std::vector<FitCandidate> candidates_beside_others(const Query& query, const Options& options) {
  std::vector<FitCandidate> candidates = fit_candidates(query, options);
  if (options.engine.schemes.empty()) {
    candidates.resize(1);
  }
  // A version of llama.cpp has one layout of latents, which is its native one.
  if (wants_all_schemes(options) && query.engine->name == "llama.cpp") {
    std::erase_if(candidates, [](const FitCandidate& one) {
      return one.cache_case.scheme == CacheScheme::mla_with_v ||
             one.cache_case.scheme == CacheScheme::mla_expanded;
    });
  }
  return candidates;
}

/// One engine's answers of many. What it cannot run, of all that there is, `ideal` answers alone.
std::vector<FitAnswer> answers_beside_others(const Query& query,
                                             const Options& options,
                                             std::int64_t users_context) {
  std::vector<FitAnswer> answers;
  for (const auto& [cache_case, is_named] : candidates_beside_others(query, options)) {
    try {
      FitAnswer answer = answer_of(query, options, cache_case, users_context);
      if (answer.label.engine_support || !wants_all_schemes(options)) {
        answers.push_back(std::move(answer));
      }
    } catch (const Error&) {
      if (is_named) {
        throw;
      }
    }
  }
  return answers;
}

int exit_code(const std::vector<FitAnswer>& answers) {
  const bool any = std::any_of(answers.begin(), answers.end(), [](const FitAnswer& answer) {
    return answer.max_context_tokens > 0;
  });
  return any ? 0 : 1;
}

/// The option that asks for a machine or for types in place of a context; null: none does.
const char* other_search(const Options& options) {
  return options.smallest_gpu ? "--smallest-gpu" : options.best_quant ? "--best-quant" : nullptr;
}

void require_speed_options(const Options& options) {
  if (options.with_speed && other_search(options) != nullptr) {
    throw InputError("--with-speed",
                     std::string("given together with ") + other_search(options),
                     "ask kvfathom speed about the answer");
  }
  if (!options.with_speed && (options.calibration || options.gpu.host_bandwidth)) {
    throw InputError(options.calibration ? "--calibration" : "--host-bandwidth",
                     "given without --with-speed",
                     "give both, or neither");
  }
}

void require_machine(const Query& query) {
  if (!query.machine.known()) {
    throw InputError("--gpu", "missing", "give --gpu NAME, --gpu local or --memory SIZE");
  }
}

/// `--engine all`. An engine that refuses the model or a setting is named with its reason; if all
/// do, the last reason is the answer.
int fit_all_engines(const Options& options, Console& console, std::int64_t users_context) {
  const Query base = read_model_and_machine(options);
  require_machine(base);
  std::vector<FitAnswer> answers;
  std::vector<RefusedEngine> refused;
  for (const EngineInfo& engine : engines()) {
    if (engine.name == "reference") {
      continue;  // its answer is that of `ideal`
    }
    try {
      const Query query = calibrated(with_engine(base, options, engine), options);
      for (FitAnswer& answer : answers_beside_others(query, options, users_context)) {
        answers.push_back(std::move(answer));
      }
    } catch (const InputError& error) {
      refused.push_back({std::string(engine.name), error.what()});
    } catch (const Unsupported& error) {
      refused.push_back({std::string(engine.name), error.what()});
    }
  }
  if (answers.empty()) {
    throw Unsupported("--engine", "no engine takes this: " + refused.back().reason, "");
  }
  if (console.json) {
    print_json(console, json_of(base, options, answers, refused, {}));
  } else {
    print_engines(console, base, options, answers, refused);
  }
  return exit_code(answers);
}

bool wants_every_engine(const Options& options) {
  return options.engine.engine && lower(*options.engine.engine) == "all";
}

}  // namespace

std::int64_t asked_for(const Options& options, const FitAnswer& answer) {
  return options.users ? answer.sequences : answer.max_context_tokens;
}

const char* title_of(const Options& options) {
  if (options.users) {
    return "sequences";
  }
  return options.with_speed ? "longest" : "longest context";  // speeds need the room
}

int fit(const Options& options, Console& console) {
  if (other_search(options) != nullptr && wants_every_engine(options)) {
    throw InputError("--engine",
                     std::string("all, given together with ") + other_search(options),
                     "name one engine");
  }
  require_speed_options(options);
  if (options.smallest_gpu) {
    return fit_smallest_gpu(options, console);
  }
  if (options.best_quant) {
    return fit_best_quant(options, console);
  }
  if (options.vendor || options.max_gpus) {
    throw InputError(options.vendor ? "--vendor" : "--max-gpus",
                     "given without --smallest-gpu",
                     "give --smallest-gpu --context N");
  }
  if (options.engine.auto_placement && options.beyond_trained) {
    throw InputError("--beyond-trained",
                     "given together with --auto",
                     "leave it out: llama.cpp's fit stays within the trained context");
  }
  const std::int64_t users_context = context_for_users(options);
  if (wants_every_engine(options)) {
    return fit_all_engines(options, console, users_context);
  }
  const Query query = calibrated(read_query(options), options);
  require_machine(query);
  const auto answers = answers_of(query, options, fit_cases(query, options), users_context);
  if (console.json) {
    print_json(console, json_of(query, options, answers, {}, left_out(query, options)));
  } else {
    print_fit(console, query, options, answers);
  }
  return exit_code(answers);
}

}  // namespace kvfathom::cli
