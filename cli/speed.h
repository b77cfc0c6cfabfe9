// The answers of `kvfathom speed`, and their table.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/options.h"
#include "cli/query.h"
#include "cli/speed_plan.h"
#include "model/latency/step_ops.h"
#include "model/latency/step_time.h"

namespace kvfathom::cli {

/// One operation of a point, all its layers together.
struct SpeedOp {
  Op op;
  Seconds time;
  BoundBy bound = BoundBy::launch;
};

/// A prompt, or a decode step, of some context and batch.
struct SpeedPoint {
  Phase phase = Phase::decode;
  std::int64_t context_tokens = 0;  ///< prefill: of the prompt; decode: cached
  std::int64_t sequences = 1;
  StepTime step = {};
  double tokens_per_sequence = 1.0;  ///< that a decode step yields: more with speculation
  bool fits = true;                  ///< the engine's memory at this context and batch
  std::vector<SpeedOp> ops = {};
  [[nodiscard]] double tokens() const;  ///< that the step yields
  [[nodiscard]] double tpot_s() const;  ///< a sequence's time per token
  [[nodiscard]] Estimate tokens_per_s() const;
};

/// The points of one way to keep the cache.
struct SpeedCase {
  CacheCase cache_case;
  SchemeLabel label;
  std::vector<SpeedPoint> by_context = {};  ///< of the sequences asked for; prompt, then decode
  std::vector<SpeedPoint> by_batch = {};    ///< decode, at the context asked for
  /// Contexts at which a decode step is quicker than with the first case.
  std::vector<Span> pays = {};
  std::string laws = {};  ///< where the times come from, in a sentence
};

struct SpeedAnswer {
  std::int64_t context_tokens = 0;
  std::int64_t sequences = 1;
  bool prompts = true;  ///< a peak rate is known, without which a prompt has no time
  std::vector<SpeedCase> cases = {};
  std::optional<Speculation> speculation = std::nullopt;
  std::optional<double> watts = std::nullopt;  ///< of all GPUs, where energy was asked for
};

void print_speed(Console& console, const Query& query, const SpeedAnswer& answer);

}  // namespace kvfathom::cli
