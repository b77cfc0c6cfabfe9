// The answers of `fit` and how they are printed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/query.h"
#include "model/latency/estimate.h"
#include "model/latency/step_time.h"

namespace kvfathom::cli {

/// At the context, and for the sequences, of an answer.
struct FitSpeed {
  Estimate tokens_per_s = {};  ///< decode, all sequences together
  BoundBy bound = BoundBy::launch;
  std::optional<Estimate> ttft_s = std::nullopt;  ///< of one prompt; none without a peak rate
  std::string laws = {};                          ///< where the times come from, in a sentence
};

struct FitAnswer {
  std::string engine;  ///< name and version, as a headline says them
  std::string beside;  ///< the model: drafts, adapters, a projector
  std::string engine_name;
  std::string engine_version;  ///< empty: it has one
  CacheCase cache_case;
  SchemeLabel label;
  std::int64_t max_context_tokens = 0;  ///< 0: not even one token fits
  std::int64_t sequences = 0;
  std::string limited_by;              ///< memory, model, weights; with --users also engine, search
  MemoryReport report;                 ///< at the answer; at one token where nothing fits
  std::optional<Placement> placement;  ///< where layers are not simply all on one device
  std::string command;
  std::optional<FitSpeed> speed;  ///< where it was asked for and has laws
  std::string no_speed;           ///< why it has none
};

/// Tokens, or with --users sequences: what an answer is an answer to, and how a table calls it.
[[nodiscard]] std::int64_t asked_for(const Options& options, const FitAnswer& answer);
[[nodiscard]] const char* title_of(const Options& options);

/// A case that `fit` tries. What was asked for by name must answer or say why not; the rest may
/// silently not apply.
struct FitCandidate {
  CacheCase cache_case;
  bool is_named = false;
};

/// The cases of `fit_cases` before the engine is asked about them.
[[nodiscard]] std::vector<FitCandidate> fit_candidates(const Query& query, const Options& options);

/// An engine of `--engine all` that has no answer, and why.
struct RefusedEngine {
  std::string engine;
  std::string reason;
};

/// Every engine's answers side by side, and what makes them differ.
void print_engines(Console& console,
                   const Query& query,
                   const Options& options,
                   const std::vector<FitAnswer>& answers,
                   const std::vector<RefusedEngine>& refused);

/// A line for each lossy scheme of the answers: what was published about it.
void print_published(Console& console, const std::vector<FitAnswer>& answers);

void print_fit(Console& console,
               const Query& query,
               const Options& options,
               const std::vector<FitAnswer>& answers);

}  // namespace kvfathom::cli
