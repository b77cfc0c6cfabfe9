// `--auto`: what llama.cpp's own fit would choose, by our ledger.
#pragma once

#include "cli/query.h"
#include "model/engine/llama_cpp/fit.h"

namespace kvfathom::cli {

/// The fit's choice for a case: at `context_tokens`, or without one at the trained context or the
/// part of it that fits. Lines that are not exact count with their high ends, as wherever something
/// has to fit, and the query's reserve is what stays free.
[[nodiscard]] llama_cpp::Fitted auto_fitted(const Query& query,
                                            const CacheCase& cache_case,
                                            std::optional<std::int64_t> context_tokens);

/// A context beyond `context_tokens` that fits once it is asked for by name, so that it stays and
/// more goes to the host: the trained one, or a half, a quarter .. of it.
[[nodiscard]] std::optional<std::int64_t> longer_if_named(const Query& query,
                                                          const CacheCase& cache_case,
                                                          std::int64_t context_tokens);

/// `query` with the layers of `chosen`, and nothing left to place.
[[nodiscard]] Query placed_as(Query query, const llama_cpp::Fitted& chosen);

/// `query` with its layers placed for the case, if they are to be placed at all.
[[nodiscard]] Query placed_for(const Query& query, const CacheCase& cache_case);

}  // namespace kvfathom::cli
