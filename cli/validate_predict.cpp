#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "cli/data_dir.h"
#include "cli/model_argument.h"
#include "cli/validate.h"
#include "model/engine/engine.h"
#include "model/engine/history.h"
#include "model/error.h"
#include "model/io/engine_history_json.h"
#include "model/io/file.h"
#include "model/quantile.h"

namespace kvfathom::cli {
namespace {

/// The bytes of one component in a prediction, with its interval.
struct Predicted {
  double bytes = 0;
  double low = 0;
  double high = 0;
};

Predicted exactly(std::int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  return {value, value, value};
}

Predicted of_line(const MemoryLedger& ledger, Device device, LedgerKind kind) {
  Predicted sum;
  for (const LedgerLine& line : ledger.lines) {
    if (line.device == device && line.kind == kind) {
      sum.bytes += static_cast<double>(line.bytes);
      sum.low += static_cast<double>(line.low_bytes);
      sum.high += static_cast<double>(line.high_bytes);
    }
  }
  return sum;
}

Predicted operator+(const Predicted& a, const Predicted& b) {
  return {a.bytes + b.bytes, a.low + b.low, a.high + b.high};
}

/// "compute (gpu1, split)": a line of one device where layers are spread over several.
std::optional<Predicted> component_of_device(const MemoryLedger& ledger,
                                             const std::string& component) {
  constexpr std::string_view kTail = ", split)";
  const std::size_t open = component.find(" (");
  if (!component.ends_with(kTail) || open == std::string::npos) {
    return std::nullopt;
  }
  const std::string place = component.substr(open + 2, component.size() - kTail.size() - open - 2);
  const Device device{place == "host" ? Device::kHost : place.back() - '0'};
  const std::string kind = component.substr(0, open);
  if (kind == "cache + state") {
    return of_line(ledger, device, LedgerKind::cache) + of_line(ledger, device, LedgerKind::state);
  }
  return of_line(ledger, device, kind == "weights" ? LedgerKind::weights : LedgerKind::compute);
}

Predicted component_of(const MemoryReport& report, const std::string& component) {
  if (const auto split = component_of_device(report.ledger, component)) {
    return *split;
  }
  const Device host{Device::kHost};
  const Device gpu{0};
  const MemoryLedger& ledger = report.ledger;
  const CacheReport& cache = report.cache;
  if (component == "weights") {
    return of_line(ledger, gpu, LedgerKind::weights);
  }
  if (component == "weights (host)") {
    return of_line(ledger, host, LedgerKind::weights);
  }
  if (component == "compute (gpu)") {
    return of_line(ledger, gpu, LedgerKind::compute);
  }
  if (component == "compute (host)" || component == "compute (cpu)") {
    return of_line(ledger, host, LedgerKind::compute);
  }
  if (component == "output") {
    return of_line(ledger, host, LedgerKind::output);
  }
  if (component == "cache") {
    return exactly(cache.k_bytes + cache.v_bytes);
  }
  if (component == "state") {
    return exactly(cache.state_bytes);
  }
  if (component == "cache + state") {
    return exactly(cache.bytes());
  }
  if (component == "all weights") {
    return exactly(ledger.bytes_of(LedgerKind::weights));
  }
  if (component == "cache per token") {
    return exactly(cache.bytes_per_token);
  }
  throw InputError("component", "'" + component + "' is not in a ledger", "");
}

/// What the pool of logged available memory holds; the bounds are those of the log's rounding.
Predicted of_pool(const TruthRow& row, const MemoryPlan& plan, const std::string& component) {
  const auto holds = [&](double available_bytes) {
    const auto pool = plan.pool(static_cast<std::int64_t>(available_bytes), row.context_tokens);
    if (!pool || row.available_bytes <= 0) {
      throw Unsupported(row.engine, "no available memory is logged, or the engine has no pool", "");
    }
    return component == "concurrency" ? pool->concurrency : static_cast<double>(pool->tokens);
  };
  const double half = row.available_resolution_bytes / 2;
  return {holds(row.available_bytes),
          holds(row.available_bytes - half),
          holds(row.available_bytes + half)};
}

/// What the device has left for the cache beside all other lines.
Predicted available_beside(const MemoryLedger& ledger, std::int64_t device_memory_bytes) {
  const auto memory = static_cast<double>(device_memory_bytes);
  Predicted left{memory, memory, memory};
  for (const LedgerLine& line : ledger.lines) {
    const bool counts = line.device == Device{0} && line.kind != LedgerKind::cache;
    left.bytes -= counts ? static_cast<double>(line.bytes) : 0.0;
    left.low -= counts ? static_cast<double>(line.high_bytes) : 0.0;
    left.high -= counts ? static_cast<double>(line.low_bytes) : 0.0;
  }
  return left;
}

/// Models and engine histories, each read once.
class Library {
 public:
  explicit Library(std::string folder) : folder_(std::move(folder)) {}

  const ModelSpec& model(const std::string& name, const std::string& weights) {
    auto& slot = models_[{name, weights}];
    if (!slot) {
      const Text recipe = weights.empty() ? Text() : Text(weights);
      const std::string own = folder_ + "/models/" + name + ".json";
      slot = std::make_unique<ModelArgument>(read_model(is_regular_file(own) ? own : name, recipe));
    }
    return slot->spec;
  }

  std::vector<std::string> missing(const std::string& engine, const std::string& asked) {
    const std::string version =
        asked.empty() ? std::string(engine_named(engine).newest_version) : asked;
    if (version.empty()) {
      return {};
    }
    auto& slot = histories_[engine];
    if (!slot) {
      const auto path = data_directory() / "engines" / (engine + ".json");
      slot = std::make_unique<EngineHistory>(read_engine_history(path.string()));
    }
    return missing_behaviours(*slot, version);
  }

 private:
  std::string folder_;
  std::map<std::pair<std::string, std::string>, std::unique_ptr<ModelArgument>> models_;
  std::map<std::string, std::unique_ptr<EngineHistory>> histories_;
};

Outcome outcome_of(const TruthRow& row) {
  Outcome outcome;
  outcome.id = row.id;
  outcome.engine = row.engine;
  outcome.model = row.model;
  return outcome;
}

Outcome compared(const TruthRow& row, const LoggedSize& size, const Predicted& predicted) {
  Outcome outcome = outcome_of(row);
  outcome.component = size.component;
  outcome.predicted_bytes = predicted.bytes;
  outcome.actual_bytes = size.bytes;
  // Half a unit in the log's last place, inclusive: a printed half may have gone either way.
  constexpr double kSlack = 1.0 + 1e-6;
  const double half = size.resolution_bytes != 1.0 ? size.resolution_bytes / 2 * kSlack : 0.0;
  outcome.exact = std::fabs(predicted.bytes - size.bytes) <= half;
  outcome.covered = predicted.low - half <= size.bytes && size.bytes <= predicted.high + half;
  return outcome;
}

/// What the engine itself says to settings it does not take; nothing if it takes them.
struct Planned {
  std::unique_ptr<MemoryPlan> plan;
  MemoryReport report;
  std::string refused_by_engine;
};

Planned plan_row(const TruthRow& row, Library& library) {
  EngineSettings settings = row.settings;
  settings.missing_behaviours = library.missing(row.engine, settings.engine_version);
  const EngineInfo& engine = engine_named(row.engine);
  const ModelSpec& model = library.model(row.model, row.weights);
  try {
    auto plan = engine.prepare(model, settings);
    MemoryReport report = plan->evaluate(row.context_tokens);
    return {std::move(plan), std::move(report), ""};
  } catch (const InputError& error) {
    return {nullptr, {}, error.what()};
  }
}

/// A row that the engine refused, or that we say it refuses: right or wrong as a whole.
Outcome refusal_of(const TruthRow& row, bool agreed) {
  Outcome outcome = outcome_of(row);
  outcome.component = "refusal";
  outcome.predicted_bytes = agreed ? 1 : 0;
  outcome.actual_bytes = 1;
  outcome.exact = agreed;
  outcome.covered = agreed;
  return outcome;
}

Predicted predicted_of(const TruthRow& row, const Planned& planned, const std::string& component) {
  if (component == "concurrency" || component == "pool tokens") {
    return of_pool(row, *planned.plan, component);
  }
  if (component == "available") {
    return available_beside(planned.report.ledger, row.settings.device_memory_bytes);
  }
  return component_of(planned.report, component);
}

void predict_row(const TruthRow& row, Library& library, std::vector<Outcome>& outcomes) {
  Outcome refusal = outcome_of(row);
  refusal.refused = row.unpredictable;
  try {
    if (refusal.refused.empty()) {
      const Planned planned = plan_row(row, library);
      refusal.refused = row.planned ? planned.refused_by_engine : "";
      if (!row.planned) {
        outcomes.push_back(refusal_of(row, !planned.refused_by_engine.empty()));
      } else if (refusal.refused.empty()) {
        for (const LoggedSize& size : row.sizes) {
          outcomes.push_back(compared(row, size, predicted_of(row, planned, size.component)));
        }
      }
    }
  } catch (const Error& error) {
    refusal.refused = error.what();
  }
  if (!refusal.refused.empty()) {
    outcomes.push_back(refusal);
  }
}

Summary summary_of(std::string by, std::string name, const std::vector<const Outcome*>& outcomes) {
  Summary summary{.by = std::move(by), .name = std::move(name)};
  std::vector<double> errors;
  std::int64_t under = 0;
  std::int64_t covered = 0;
  for (const Outcome* outcome : outcomes) {
    if (!outcome->refused.empty()) {
      ++summary.refused;
      continue;
    }
    const double error = outcome->error();
    errors.push_back(std::fabs(error));
    summary.exact += outcome->exact ? 1 : 0;
    under += error < 0 ? 1 : 0;
    covered += outcome->covered ? 1 : 0;
    summary.worst_under = std::max(summary.worst_under, -error);
  }
  summary.n = static_cast<std::int64_t>(errors.size());
  summary.median_abs_error = quantile(errors, 0.5);
  summary.p90_abs_error = quantile(errors, 0.9);
  const double n = std::max<double>(1.0, static_cast<double>(summary.n));
  summary.share_under = static_cast<double>(under) / n;
  summary.share_covered = static_cast<double>(covered) / n;
  return summary;
}

template <class NameOf>
void add_summaries(const char* by,
                   NameOf name_of,
                   const std::vector<Outcome>& outcomes,
                   std::vector<Summary>& summaries) {
  std::vector<std::pair<std::string, std::vector<const Outcome*>>> groups;
  std::map<std::string, std::size_t> index;
  for (const Outcome& outcome : outcomes) {
    const std::string name = name_of(outcome);
    const auto [slot, added] = index.try_emplace(name, groups.size());
    if (added) {
      groups.emplace_back(name, std::vector<const Outcome*>{});
    }
    groups[slot->second].second.push_back(&outcome);
  }
  for (const auto& [name, members] : groups) {
    summaries.push_back(summary_of(by, name, members));
  }
}

}  // namespace

double Outcome::error() const {
  if (exact || !refused.empty()) {
    return 0.0;
  }
  const double difference = predicted_bytes - actual_bytes;
  return actual_bytes > 0 ? difference / actual_bytes : 1.0;
}

std::vector<Outcome> predict(const std::vector<TruthRow>& rows, const std::string& folder) {
  Library library(folder);
  std::vector<Outcome> outcomes;
  for (const TruthRow& row : rows) {
    predict_row(row, library, outcomes);
  }
  return outcomes;
}

std::vector<Summary> summarise(const std::vector<Outcome>& outcomes) {
  std::vector<Summary> summaries;
  const auto component = [](const Outcome& o) {
    return o.component.empty() ? std::string("(whole row)") : o.component;
  };
  const auto model = [](const Outcome& o) {
    return o.model.empty() ? std::string("(unknown)") : o.model;
  };
  add_summaries("component", component, outcomes, summaries);
  add_summaries("model", model, outcomes, summaries);
  add_summaries(
      "engine", [](const Outcome& o) { return o.engine; }, outcomes, summaries);
  add_summaries(
      "component of model",
      [&](const Outcome& o) { return component(o) + ", " + model(o); },
      outcomes,
      summaries);
  return summaries;
}

}  // namespace kvfathom::cli
