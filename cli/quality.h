// Published quality of lossy schemes, as answers carry it.
#pragma once

#include "cli/console.h"
#include "cli/json_writer.h"
#include "cli/query.h"

namespace kvfathom::cli {

/// Every figure published for the case's scheme, of the same model and the nearest setting first;
/// empty for exact schemes.
[[nodiscard]] std::vector<cache::Evidence> evidence(const Query& query,
                                                    const SchemeLabel& label,
                                                    const CacheCase& cache_case,
                                                    std::int64_t context_tokens);

[[nodiscard]] Json quality_json(const std::vector<cache::Evidence>& figures);

/// The nearest figures as a short table, or that nothing was published.
void print_quality(Console& console, const std::vector<cache::Evidence>& figures);

/// The scheme as rows of tables name it: "kivi ~" is lossy, "mla-with-v *" has a rule of the
/// engine, which cannot run it.
[[nodiscard]] std::string marked(const SchemeLabel& label, const CacheCase& cache_case);
[[nodiscard]] bool is_for_comparison(const SchemeLabel& label, const CacheCase& cache_case);

/// A row of a table, for what `~` says of it.
struct QualityRow {
  const SchemeLabel* label = nullptr;
  bool by_type = false;  ///< it is the type of the cache that loses, not the scheme
};
[[nodiscard]] QualityRow quality_row(const SchemeLabel& label, const CacheCase& cache_case);

/// A line for each lossy scheme: the nearest figure, or that nothing was published. Nothing where
/// all are exact.
void print_quality_lines(Console& console, const std::vector<QualityRow>& rows);

}  // namespace kvfathom::cli
