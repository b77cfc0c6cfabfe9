// kvfathom memory: the ledger for exact settings.
#include <algorithm>
#include <limits>
#include <optional>

#include "cli/commands.h"
#include "cli/format.h"
#include "cli/headline.h"
#include "cli/json_writer.h"
#include "cli/ledger_table.h"
#include "cli/quality.h"
#include "cli/remedies.h"
#include "cli/table.h"
#include "cli/values.h"
#include "model/error.h"

namespace kvfathom::cli {
namespace {

struct Answer {
  CacheCase cache_case;
  SchemeLabel label;
  std::int64_t context_tokens = 0;  ///< as given to the plan: per sequence, or in all
  MemoryReport report;
  std::string command;
  std::optional<Placement> placement;
  bool fits = true;
  std::int64_t generated_bytes_per_token = 0;  ///< not 0: what is generated adds to the budget
};

/// SnapKV and its like choose among the prompt once: below the budget a token takes what a
/// generated one takes on top of it.
std::int64_t generated_bytes(const CacheCase& cache_case, const MemoryPlan& plan) {
  const auto* eviction = std::get_if<cache::EvictionParameters>(&cache_case.parameters);
  const bool once = cache_case.scheme == CacheScheme::evict_snapkv ||
                    cache_case.scheme == CacheScheme::evict_grkv;
  return once && eviction != nullptr && eviction->generated == 0
             ? plan.evaluate(1).cache.bytes_per_token
             : 0;
}

std::int64_t read_context(const Options& options, Query& query) {
  constexpr std::int64_t kMost = std::int64_t{1} << 32;
  const EngineOptions& engine = options.engine;
  if (engine.context && engine.total_context) {
    throw InputError("--total-context", "given together with --context", "give one of them");
  }
  if (engine.total_context) {
    query.settings.context_is_total = true;
    return parse_count("--total-context", *engine.total_context, 1, kMost);
  }
  if (!engine.context) {
    throw InputError("--context", "missing", "give --context N or --total-context N");
  }
  return parse_count("--context", *engine.context, 1, kMost);
}

Answer answer(const Query& query, const CacheCase& cache_case, std::int64_t context_tokens) {
  const auto plan = plan_of(query, cache_case);
  Answer result{.cache_case = cache_case,
                .label = label_of(query, cache_case, *plan),
                .context_tokens = context_tokens,
                .report = plan->evaluate(context_tokens),
                .command = plan->command(context_tokens, shell_word(query.model.file)),
                .placement = plan->placement()};
  result.label.quality = evidence(query, result.label, cache_case, context_tokens);
  result.generated_bytes_per_token = generated_bytes(cache_case, *plan);
  result.fits = fits(result.report.ledger, query.machine.capacities);
  return result;
}

Json json_of(const Query& query, const Answer& answer) {
  Json json = document("memory");
  json["model"] = model_json(query.model.spec);
  json["engine"] = engine_json(query);
  json["scheme"] = scheme_json(answer.label);
  json["context_tokens"] = answer.report.context_tokens;
  json["sequences"] = query.settings.sequences;
  json["cache"] = cache_json(answer.report.cache);
  json["ledger"] = ledger_json(answer.report.ledger);
  json["device_totals"] = device_totals_json(answer.report.ledger, query.machine);
  json["fits"] = query.machine.known() ? Json(answer.fits) : Json(nullptr);
  json["placement"] = placement_json(answer.placement);
  json["command"] = text_or_null(answer.command);
  return json;
}

/// "One more token adds 562,176 B in all, 70,272 B on each of 8 GPUs": where ranks share the heads
/// or hold copies, and stages none.
std::string growth_text(const Query& query, const Answer& answer) {
  const CacheReport& cache = answer.report.cache;
  const EngineSettings& settings = query.settings;
  const bool several = query.machine.n_gpus > settings.data_parallel && cache.bytes_per_token > 0;
  const bool alike = settings.tensor_parallel > 1 && settings.pipeline_parallel == 1;
  std::string text = "One more token ";
  text += answer.generated_bytes_per_token > 0 ? "of the prompt adds " : "adds ";
  text += thousands(cache.bytes_per_token) + " B" + (several ? " in all" : "");
  if (several && alike) {
    text += ", " + thousands(cache.bytes_per_token / settings.tensor_parallel) + " B on each of " +
            counted(settings.tensor_parallel, "GPU");
  }
  if (cache.offloaded && cache.offloaded->bytes_per_token > 0) {
    text += ", " + thousands(cache.offloaded->bytes_per_token) + " B of it in the slower tier";
  }
  if (answer.generated_bytes_per_token > 0) {
    text += ", one that is generated " + thousands(answer.generated_bytes_per_token) + " B";
  }
  if (cache.fixed_bytes_per_sequence > 0) {
    text += "; a sequence costs " + gib(cache.fixed_bytes_per_sequence) + " however short";
  }
  return text + ".";
}

void print_cache(Console& console, const Query& query, const Answer& answer) {
  const CacheReport& cache = answer.report.cache;
  Table table{.columns = {{"cache"},
                          {"layers", Align::right},
                          {"cells", Align::right},
                          {"streams", Align::right},
                          {"K GiB", Align::right},
                          {"V GiB", Align::right},
                          {"state GiB", Align::right}},
              .rows = {}};
  const auto size = [](std::int64_t bytes) { return bytes == 0 ? "-" : gib_number(bytes); };
  for (const CacheGroup& group : cache.groups) {
    if (group.k_bytes + group.v_bytes + group.state_bytes == 0) {
      continue;  // layers between checkpoints
    }
    table.rows.push_back({{std::string(group.scheme)},
                          {thousands(group.n_layers)},
                          {group.cells == 0 ? "-" : thousands(group.cells)},
                          {thousands(group.streams)},
                          {size(group.k_bytes)},
                          {size(group.v_bytes)},
                          {size(group.state_bytes)}});
  }
  print(console, table);
  console.paragraph(growth_text(query, answer), 2);
}

/// What a scheme holds for a while beside its cache: the prompt before it is thinned out, rows that
/// are rebuilt, rows on their way from a slower tier.
void print_peak(Console& console, const CacheReport& cache) {
  const std::int64_t beyond = cache.prefill_peak_bytes - cache.bytes();
  if (beyond > 0) {
    console.paragraph("With what it needs for a while, at most " + gib(cache.prefill_peak_bytes) +
                          ": " + gib(beyond) + " more than it keeps.",
                      2);
  }
}

/// The least free of any device with a capacity: by the nominal sizes, and by the high bounds.
struct Room {
  std::int64_t bytes = std::numeric_limits<std::int64_t>::max();
  std::int64_t low_bytes = std::numeric_limits<std::int64_t>::max();
};

Room room_in(const MemoryLedger& ledger, const Machine& machine) {
  Room room;
  for (const Capacity& capacity : machine.capacities) {
    const DeviceTotal total = held(ledger, capacity);
    room.bytes = std::min(room.bytes, capacity.bytes - total.bytes);
    room.low_bytes = std::min(room.low_bytes, capacity.bytes - total.high_bytes);
  }
  return room;
}

void print_verdict(Console& console,
                   const Query& query,
                   const Options& options,
                   const Answer& answer) {
  if (!query.machine.known()) {
    return;
  }
  const Room room = room_in(answer.report.ledger, query.machine);
  console.line();
  if (answer.fits) {
    std::string text = console.styled("Fits", Style::good) + ", " + gib(room.bytes) + " to spare";
    if (room.low_bytes != room.bytes) {
      text += " (at least " + gib(room.low_bytes) + ")";
    }
    console.line(text + ".");
    return;
  }
  console.paragraph(console.styled("Does not fit", Style::bad) +
                    (room.bytes >= 0 ? " for sure: only if the sizes that are not exact turn out "
                                       "below their upper bounds. Any one of these would do:"
                                     : ". Any one of these would do:"));
  for (const std::string& remedy :
       remedies(query, options, answer.cache_case, answer.context_tokens)) {
    console.paragraph("- " + remedy, 2);
  }
}

void print_text(Console& console, const Query& query, const Options& options, const Answer& a) {
  if (!console.quiet) {
    console.line(console.styled(model_line(query.model), Style::bold));
    console.paragraph(engine_line(query) + ", " + a.label.text + " scheme, " +
                      type_pair(a.label.k, a.label.v) + " cache, " +
                      extent(a.report.context_tokens, query.settings.sequences));
    console.paragraph(machine_line(query.machine));
    print_default_refused(console, query);
    if (a.placement) {
      console.paragraph(placement_line(*a.placement));
    }
    console.line();
  }
  print_ledger(console, a.report, query.machine);
  console.line();
  print_cache(console, query, a);
  if (!cache::is_model_scheme(a.cache_case.scheme) || a.cache_case.offload) {
    print_peak(console, a.report.cache);
  }
  if (!console.quiet) {
    print_draft_line(console, query, a.report.ledger);
    for (const std::string& note : a.label.notes) {
      console.paragraph(note, 2);
    }
    if (!a.label.exact) {
      print_quality(console, a.label.quality);
    }
  }
  print_verdict(console, query, options, a);
  if (!console.quiet) {
    print_command(console, query, a.report.context_tokens, a.command);
  }
}

}  // namespace

int memory(const Options& options, Console& console) {
  Query query = read_query(options);
  const std::int64_t context_tokens = read_context(options, query);
  if (query.auto_context_tokens) {
    query.auto_context_tokens = context_tokens;
  }
  const Answer result = answer(query, single_case(query, options), context_tokens);
  if (console.json) {
    print_json(console, json_of(query, result));
  } else {
    print_text(console, query, options, result);
  }
  return result.fits ? 0 : 1;
}

}  // namespace kvfathom::cli
