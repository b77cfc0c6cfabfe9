#include "cli/best_quant.h"

#include <algorithm>
#include <array>
#include <span>

#include "cli/commands.h"
#include "cli/format.h"
#include "cli/headline.h"
#include "cli/json_writer.h"
#include "cli/quality.h"
#include "cli/values.h"
#include "model/architecture/parameters.h"
#include "model/error.h"
#include "model/weights/recipe.h"

namespace kvfathom::cli {
namespace {

constexpr std::int64_t kMostTokens = (std::int64_t{1} << 31) - 1;

/// What publishers of GGUF files usually offer, and what serving engines load of checkpoints.
constexpr std::array<const char*, 12> kGgufRecipes{"bf16",
                                                   "q8_0",
                                                   "q6_k",
                                                   "q5_k_m",
                                                   "q5_k_s",
                                                   "q4_k_m",
                                                   "q4_k_s",
                                                   "iq4_xs",
                                                   "q3_k_m",
                                                   "iq3_xxs",
                                                   "q2_k",
                                                   "iq2_xxs"};
constexpr std::array<const char*, 4> kCheckpointFormats{"fp8", "int8", "nvfp4", "awq"};

double cache_bits(DType k, DType v) {
  const auto bits = [](DType type) {
    constexpr double kBitsPerByte = 8;
    return kBitsPerByte * static_cast<double>(info(type).block_bytes) /
           static_cast<double>(info(type).block_elements);
  };
  return std::min(bits(k), bits(v));
}

/// Queries that differ in their weights: as the model is, where no file fixes them also packed.
std::vector<Query> with_every_weights(const Query& query,
                                      const Options& options,
                                      std::vector<RefusedWeights>& refused) {
  const bool serving = loads_checkpoints(*query.engine);
  std::vector<Query> queries;
  if (serving || !query.model.foretold || options.weights) {
    queries.push_back(query);
  }
  if (!query.model.foretold || options.weights) {
    return queries;
  }
  const std::span<const char* const> names =
      serving ? std::span<const char* const>(kCheckpointFormats) : kGgufRecipes;
  for (const char* recipe : names) {
    try {
      Query packed = query;
      packed.model = read_model(options.model, recipe);
      if (serving) {
        packed.settings.online_fp8 = quantises_online(*query.engine, packed.model.weights);
        packed.model.file = served_name(packed.model, options.model, !packed.settings.online_fp8);
      }
      queries.push_back(std::move(packed));
    } catch (const Error& error) {
      refused.push_back({recipe, error.what()});
    }
  }
  return queries;
}

/// Cases of the model's own scheme.
std::vector<CacheCase> native_cases(const Query& query, const Options& options) {
  std::vector<CacheCase> cases = fit_cases(query, options);
  std::erase_if(cases, [](const CacheCase& one) { return one.scheme != CacheScheme::native; });
  return cases;
}

QuantAnswer answer_of(const Query& query,
                      const CacheCase& cache_case,
                      const Options& options,
                      std::int64_t context_tokens,
                      std::int64_t n_parameters) {
  const auto plan = plan_of(query, cache_case);
  const std::int64_t trained = query.model.spec.trained_context_tokens;
  const std::int64_t limit =
      options.beyond_trained || trained <= 0 ? kMostTokens : std::max(trained, context_tokens);
  constexpr double kBitsPerByte = 8;
  QuantAnswer answer;
  answer.weights = query.model.weights;
  answer.cache_case = cache_case;
  answer.label = label_of(query, cache_case, *plan);
  answer.label.quality = evidence(query, answer.label, cache_case, context_tokens);
  answer.report = plan->evaluate(context_tokens);
  const auto& capacities = query.machine.capacities;
  for (const Capacity& capacity : capacities) {
    const std::int64_t needed = held(answer.report.ledger, capacity).high_bytes;
    answer.missing_bytes += std::max<std::int64_t>(0, needed - capacity.bytes);
  }
  answer.pair = {.weight_bits = kBitsPerByte *
                                static_cast<double>(weight_bytes(query.model.spec.tensors)) /
                                static_cast<double>(n_parameters),
                 .cache_bits = cache_bits(cache_case.k, cache_case.v),
                 .longest_context_tokens = longest_context(*plan, capacities, limit).context_tokens,
                 .fits = fits(answer.report.ledger, capacities)};
  if (answer.pair.fits) {
    answer.command = plan->command(context_tokens, shell_word(query.model.file));
  }
  return answer;
}

QuantSearch searched(const Query& query, const Options& options, std::int64_t context_tokens) {
  QuantSearch search;
  search.context_tokens = context_tokens;
  const std::int64_t n_parameters = count_parameters(query.model.spec).total;
  for (const Query& one : with_every_weights(query, options, search.refused)) {
    try {
      for (const CacheCase& cache_case : native_cases(one, options)) {
        search.answers.push_back(answer_of(one, cache_case, options, context_tokens, n_parameters));
        search.pairs.push_back(search.answers.back().pair);
      }
    } catch (const Error& error) {
      search.refused.push_back({one.model.weights, error.what()});
    }
  }
  if (search.answers.empty()) {
    throw Unsupported("--best-quant", "the engine takes none: " + search.refused.back().reason, "");
  }
  return search;
}

Json answer_json(const Query& query, const QuantAnswer& answer) {
  return {{"weights", answer.weights},
          {"weight_bits", answer.pair.weight_bits},
          {"cache_bits", answer.pair.cache_bits},
          {"scheme", scheme_json(answer.label)},
          {"fits", answer.pair.fits},
          {"max_context_tokens", answer.pair.longest_context_tokens},
          {"missing_bytes", answer.missing_bytes},
          {"ledger", ledger_json(answer.report.ledger)},
          {"device_totals", device_totals_json(answer.report.ledger, query.machine)},
          {"command", text_or_null(answer.command)}};
}

Json json_of(const Query& query, const QuantSearch& search) {
  Json json = document("fit-best-quant");
  json["model"] = model_json(query.model.spec);
  json["gpu"] = {
      {"name", query.machine.name},
      {"count", query.machine.n_gpus},
      {"usable_bytes", query.machine.capacities.front().bytes - query.machine.reserve_bytes}};
  json["engine"] = engine_json(query);
  json["context_tokens"] = search.context_tokens;
  json["sequences"] = query.settings.sequences;
  json["answers"] = Json::array();
  for (const QuantAnswer& answer : search.answers) {
    json["answers"].push_back(answer_json(query, answer));
  }
  const auto best = finest_pair(search.pairs);
  json["best"] = best ? Json(*best) : Json(nullptr);
  json["unbeaten"] = unbeaten_pairs(search.pairs);
  json["refused"] = Json::array();
  for (const RefusedWeights& one : search.refused) {
    json["refused"].push_back({{"weights", one.weights}, {"reason", one.reason}});
  }
  json["explanation"] = best_quant_sentence(search, query.machine);
  return json;
}

void require_question(const Options& options) {
  if (!options.engine.context) {
    throw InputError("--best-quant", "--context is missing", "give the tokens: --context N");
  }
  const bool schemes = !options.engine.schemes.empty();
  if (schemes || options.users || options.vendor || options.max_gpus) {
    throw InputError(schemes          ? "--scheme"
                     : options.users  ? "--users"
                     : options.vendor ? "--vendor"
                                      : "--max-gpus",
                     "given together with --best-quant",
                     "leave one of them out");
  }
}

}  // namespace

const QuantAnswer& nearest_to_fit(const QuantSearch& search) {
  return *std::ranges::min_element(search.answers, {}, &QuantAnswer::missing_bytes);
}

int fit_best_quant(const Options& options, Console& console) {
  require_question(options);
  Query query = read_query(options);
  if (!query.machine.known()) {
    throw InputError("--gpu", "missing", "give --gpu NAME, --gpu local or --memory SIZE");
  }
  const std::int64_t context_tokens =
      parse_count("--context", *options.engine.context, 1, kMostTokens);
  if (query.auto_context_tokens) {
    query.auto_context_tokens = context_tokens;
  }
  const QuantSearch search = searched(query, options, context_tokens);
  if (console.json) {
    print_json(console, json_of(query, search));
  } else {
    print_best_quant(console, query, search);
  }
  return finest_pair(search.pairs) ? 0 : 1;
}

}  // namespace kvfathom::cli
