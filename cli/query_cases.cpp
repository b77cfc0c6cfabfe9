// The cases that a query asks about: which schemes, in which types, and how a report names them.
#include <algorithm>
#include <utility>

#include "cli/fit.h"
#include "cli/format.h"
#include "cli/query.h"
#include "cli/values.h"
#include "model/cache/applicability.h"
#include "model/cache/scheme.h"
#include "model/error.h"

namespace kvfathom::cli {
namespace {

/// What `all` tries of a scheme: its defaults, and where a parameter decides what is stored at
/// all, its other values.
std::vector<cache::SchemeRequest> variants(CacheScheme scheme) {
  using cache::KOnlyParameters;
  using cache::ResidualParameters;
  std::vector<cache::SchemeRequest> requests{scheme};
  if (scheme == CacheScheme::k_only) {
    requests.emplace_back(scheme, KOnlyParameters{.projector = KOnlyParameters::kLearned});
  } else if (scheme == CacheScheme::residual) {
    requests.emplace_back(scheme, ResidualParameters{.checkpoints = ResidualParameters::kTokens});
  }
  return requests;
}

/// Every scheme that is not the model's own, applicable or not.
std::vector<cache::ParsedScheme> every_other_scheme(const ModelSpec& model) {
  std::vector<cache::ParsedScheme> schemes;
  for (const cache::SchemeInfo& row : cache::all_schemes()) {
    if (row.scheme == CacheScheme::native || cache::is_native_scheme(model, row.scheme)) {
      continue;
    }
    for (const cache::SchemeRequest& request : variants(row.scheme)) {
      schemes.push_back({request, std::nullopt});
      if (row.scheme == CacheScheme::offload) {
        schemes.back().offload.emplace();
      }
    }
  }
  return schemes;
}

std::vector<cache::ParsedScheme> requested_schemes(const ModelSpec& model,
                                                   const std::vector<std::string>& names) {
  std::vector<cache::ParsedScheme> schemes;
  const auto add = [&](cache::ParsedScheme scheme) {
    if (cache::is_native_scheme(model, scheme.request.id)) {
      scheme.request = CacheScheme::native;
    }
    if (std::find(schemes.begin(), schemes.end(), scheme) == schemes.end()) {
      schemes.push_back(scheme);
    }
  };
  for (const std::string& text : names) {
    if (lower(text) == "all") {
      add({CacheScheme::native});
      for (const cache::ParsedScheme& scheme : every_other_scheme(model)) {
        if (!cache::why_not(model, scheme.request)) {
          add(scheme);
        }
      }
    } else {
      add(cache::parse_scheme(text));
    }
  }
  return schemes;
}

CacheCase case_of(const cache::ParsedScheme& scheme, DType k, DType v) {
  return {scheme.request.id, k, v, scheme.request.parameters, scheme.offload};
}

/// Whether the engine has an answer for the case at all.
bool is_supported(const Query& query, const CacheCase& cache_case) {
  try {
    return plan_of(query, cache_case) != nullptr;
  } catch (const Error&) {
    return false;
  }
}

/// K and V types to try with the native scheme: those named, else three that the engine's users
/// know.
std::vector<std::pair<DType, DType>> types_to_try(const Query& query, const Options& options) {
  const DType k = query.settings.cache_type_k;
  const DType v = query.settings.cache_type_v;
  if (options.engine.cache_type_k || options.engine.cache_type_v) {
    return {{k, v}};
  }
  if (loads_checkpoints(*query.engine)) {
    return {{k, v}, {DType::f8_e4m3, DType::f8_e4m3}, {DType::nvfp4, DType::nvfp4}};
  }
  return {{k, v}, {DType::q8_0, DType::q8_0}, {DType::q4_0, DType::q4_0}};
}

/// What the engine has no rule for goes behind what it runs, after the model's own scheme by the
/// same formula: rows with and without an engine's own memory are not to be compared.
void add_formula(const Query& query, std::vector<CacheCase>& cases) {
  const auto first = std::stable_partition(
      cases.begin(), cases.end(), [](const CacheCase& one) { return !one.by_formula; });
  CacheCase native{.k = cases.front().k, .v = cases.front().v};
  native.by_formula = true;
  if (first != cases.end() && is_supported(query, native)) {
    cases.insert(first, native);
  }
}

}  // namespace

bool wants_all_schemes(const Options& options) {
  return std::ranges::any_of(options.engine.schemes,
                             [](const std::string& scheme) { return lower(scheme) == "all"; });
}

CacheCase single_case(const Query& query, const Options& options) {
  const auto schemes = requested_schemes(query.model.spec, options.engine.schemes);
  if (schemes.size() > 1) {
    throw InputError("--scheme",
                     std::to_string(schemes.size()) + " schemes",
                     "name one; only fit without --smallest-gpu takes more");
  }
  return case_of(schemes.empty() ? cache::ParsedScheme{CacheScheme::native} : schemes.front(),
                 query.settings.cache_type_k,
                 query.settings.cache_type_v);
}

std::vector<FitCandidate> fit_candidates(const Query& query, const Options& options) {
  std::vector<FitCandidate> candidates;
  const bool every = wants_all_schemes(options);
  std::vector<cache::ParsedScheme> schemes =
      requested_schemes(query.model.spec, options.engine.schemes);
  const bool by_default = schemes.empty();
  if (by_default) {
    schemes.push_back({CacheScheme::native});
    if (has_latent_attention(query.model.spec)) {
      schemes.push_back({CacheScheme::mla_with_v});
      schemes.push_back({CacheScheme::mla_expanded});
    }
  }
  const auto types = types_to_try(query, options);
  for (const cache::ParsedScheme& scheme : schemes) {
    const bool is_native = scheme.request.id == CacheScheme::native && !scheme.offload;
    for (const auto& [k, v] : types) {
      const bool named = is_native ? k == types.front().first : !by_default && !every;
      candidates.push_back({case_of(scheme, k, v), named});
      if (!is_native) {
        break;  // the first type shows what a layout costs
      }
    }
  }
  return candidates;
}

std::vector<CacheCase> fit_cases(const Query& query, const Options& options) {
  std::vector<CacheCase> cases;
  for (const auto& [candidate, named] : fit_candidates(query, options)) {
    CacheCase one = candidate;
    const bool is_native = one.scheme == CacheScheme::native && !one.offload;
    const bool is_answered = named || is_supported(query, one);
    // `all` shows by the formula what the engine does not run.
    one.by_formula = !is_answered && wants_all_schemes(options) && !is_native;
    if (is_answered || (one.by_formula && is_supported(query, one))) {
      cases.push_back(one);
    }
  }
  add_formula(query, cases);
  return cases;
}

std::vector<LeftOut> left_out(const Query& query, const Options& options) {
  std::vector<LeftOut> result;
  if (!wants_all_schemes(options)) {
    return result;
  }
  for (const cache::ParsedScheme& scheme : every_other_scheme(query.model.spec)) {
    // Layouts of other kinds of layers are no alternatives that a reader would miss.
    const auto reason = cache::why_not(query.model.spec, scheme.request);
    if (reason && !cache::is_model_scheme(scheme.request.id)) {
      result.push_back({cache::spelled(scheme.request, scheme.offload), *reason});
    }
  }
  return result;
}

SchemeLabel label_of(const Query& query, const CacheCase& cache_case, const MemoryPlan& plan) {
  const cache::SchemeRequest request = request_of(cache_case);
  const bool composed = cache_case.offload && request.id != CacheScheme::offload;
  return {.id = std::string(name(request.id)) + (composed ? "+offload" : ""),
          .text = cache::spelled(request, cache_case.offload),
          .spelling = cache::spelled(request, cache_case.offload, cache::Spelling::every),
          .k = cache_case.k,
          .v = cache_case.v,
          .exact = keeps_all(cache_case.k) && keeps_all(cache_case.v) && cache::is_exact(request),
          .engine_support = !cache_case.by_formula &&
                            (is_formula(*query.engine) || query.engine->name == "huggingface" ||
                             !plan.command(1, "m").empty()),
          .notes = cache::notes(query.model.spec, request, cache_case.offload)};
}

}  // namespace kvfathom::cli
