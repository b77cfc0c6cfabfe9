#include "cli/remedies.h"

#include <algorithm>
#include <array>

#include "cli/format.h"
#include "cli/headline.h"
#include "model/error.h"
#include "model/memory/inverse.h"

namespace kvfathom::cli {
namespace {

bool case_fits(const Query& query, const CacheCase& cache_case, std::int64_t context_tokens) {
  try {
    const auto plan = plan_of(query, cache_case);
    return fits(plan->evaluate(context_tokens).ledger, query.machine.capacities);
  } catch (const Error&) {
    return false;
  }
}

std::string tokens(std::int64_t n) {
  return thousands(n) + (n == 1 ? " token" : " tokens");
}

void add_cheaper_caches(const Query& query,
                        const CacheCase& cache_case,
                        std::int64_t context_tokens,
                        std::vector<std::string>& found) {
  if (cache_case.scheme != CacheScheme::native) {
    const CacheCase native{CacheScheme::native, cache_case.k, cache_case.v};
    if (case_fits(query, native, context_tokens)) {
      found.emplace_back("the model's own scheme (--scheme native)");
    }
  }
  for (const DType type : {DType::q8_0, DType::q4_0}) {
    CacheCase smaller = cache_case;
    smaller.k = type;
    smaller.v = type;
    if (info(type).block_bytes * info(cache_case.k).block_elements <
            info(cache_case.k).block_bytes * info(type).block_elements &&
        case_fits(query, smaller, context_tokens)) {
      const std::string word(name(type));
      std::string remedy = "a ";
      remedy.append(word).append(" cache (--cache-type-k ").append(word);
      found.push_back(remedy.append(" --cache-type-v ").append(word).append(")"));
      return;
    }
  }
}

/// The largest usual GGUF recipe whose weights leave room; only where no file fixes the weights.
void add_smaller_weights(const Query& query,
                         const Options& options,
                         const CacheCase& cache_case,
                         std::int64_t context_tokens,
                         std::vector<std::string>& found) {
  constexpr std::array<const char*, 5> kRecipes{"q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m"};
  if (!query.model.foretold) {
    return;
  }
  for (const char* recipe : kRecipes) {
    try {
      Query smaller = query;
      smaller.model = read_model(options.model, recipe);
      if (case_fits(smaller, cache_case, context_tokens)) {
        found.push_back(std::string(recipe) + " weights (--weights " + recipe + ")");
        return;
      }
    } catch (const Error&) {
      return;
    }
  }
}

/// Room for the weights as they are, or weights for the room there is.
void add_what_is_missing(const Query& query,
                         const MemoryPlan& plan,
                         std::int64_t context_tokens,
                         std::vector<std::string>& found) {
  const MemoryLedger ledger = plan.evaluate(context_tokens).ledger;
  for (const Capacity& capacity : query.machine.capacities) {
    const std::int64_t needed = ledger.total(capacity.device).high_bytes;
    const std::int64_t missing = needed - capacity.bytes;
    if (missing <= 0) {
      continue;
    }
    std::int64_t weights = 0;
    for (const LedgerLine& line : ledger.lines) {
      const bool counts = line.device == capacity.device && line.kind == LedgerKind::weights;
      weights += counts ? line.high_bytes : 0;
    }
    if (!query.model.foretold && weights > missing) {
      found.push_back("a file whose weights take at most " + gib(weights - missing) +
                      " instead of " + gib(weights));
    }
    found.push_back("a device of " + gib(needed) + ", " + gib(missing) + " more");
  }
}

}  // namespace

std::vector<std::string> remedies(const Query& query,
                                  const Options& options,
                                  const CacheCase& cache_case,
                                  std::int64_t context_tokens) {
  std::vector<std::string> found;
  const auto plan = plan_of(query, cache_case);
  const LongestContext longest =
      longest_context(*plan, query.machine.capacities, std::max<std::int64_t>(1, context_tokens));
  if (longest.context_tokens > 0 && longest.context_tokens < context_tokens) {
    found.push_back("a context of at most " + tokens(longest.context_tokens));
  }
  add_cheaper_caches(query, cache_case, context_tokens, found);
  add_smaller_weights(query, options, cache_case, context_tokens, found);
  add_what_is_missing(query, *plan, context_tokens, found);
  return found;
}

}  // namespace kvfathom::cli
