#include <algorithm>

#include "cli/fit.h"
#include "cli/format.h"
#include "cli/headline.h"
#include "cli/ledger_table.h"
#include "cli/remedies.h"
#include "cli/table.h"

namespace kvfathom::cli {
namespace {

std::int64_t asked_for(const Options& options, const FitAnswer& answer) {
  return options.users ? answer.sequences : answer.max_context_tokens;
}

/// The longest; of equals the first, which has the wider cache types. What the engine cannot run
/// is best only if nothing else is.
const FitAnswer& best_of(const Options& options, const std::vector<FitAnswer>& answers) {
  return *std::max_element(
      answers.begin(), answers.end(), [&](const FitAnswer& a, const FitAnswer& b) {
        return std::pair(a.label.engine_support, asked_for(options, a)) <
               std::pair(b.label.engine_support, asked_for(options, b));
      });
}

Style style_of(const FitAnswer& answer) {
  if (answer.max_context_tokens == 0) {
    return Style::bad;
  }
  return answer.label.engine_support ? Style::plain : Style::dim;
}

void print_answers(Console& console,
                   const Options& options,
                   const std::vector<FitAnswer>& answers,
                   const FitAnswer& best) {
  constexpr int kOtherColumns = 66;
  const int bar_cells = std::clamp(console.terminal.width - kOtherColumns, 8, 30);
  const auto most = static_cast<double>(std::max<std::int64_t>(1, asked_for(options, best)));
  Table table{.columns = {{"scheme"},
                          {"cache"},
                          {"B/token", Align::right},
                          {options.users ? "sequences" : "longest context", Align::right},
                          {""},
                          {"limited by"}},
              .rows = {}};
  for (const FitAnswer& answer : answers) {
    const Style style =
        &answer == &best && answer.max_context_tokens > 0 ? Style::good : style_of(answer);
    const std::int64_t n = asked_for(options, answer);
    table.rows.push_back(
        {{answer.label.id + (answer.label.engine_support ? "" : " *"), style},
         {type_pair(answer.label.k, answer.label.v), style},
         {thousands(answer.report.cache.bytes_per_token), style},
         {thousands(n), style},
         {bar(static_cast<double>(n) / most, bar_cells, console.terminal.utf8), style},
         {answer.limited_by, style}});
  }
  print(console, table);
}

/// One line per scheme: what it stores, and how much more that is than the model's own.
void print_reasons(Console& console, const Query& query, const std::vector<FitAnswer>& answers) {
  CacheScheme last{};
  const std::int64_t native = answers.front().report.cache.bytes_per_token;
  for (const FitAnswer& answer : answers) {
    if (&answer != &answers.front() && answer.cache_case.scheme == last) {
      continue;
    }
    last = answer.cache_case.scheme;
    std::string text =
        answer.label.id + ": " + stored_line(query.model.spec, answer.cache_case.scheme);
    if (last != CacheScheme::native && native > 0) {
      const std::int64_t tenths = answer.report.cache.bytes_per_token * 10 / native;
      text += "; " + thousands(tenths / 10) + "." + std::to_string(tenths % 10) + " x native";
    }
    console.paragraph(text, 2);
  }
  const bool unsupported = std::any_of(
      answers.begin(), answers.end(), [](const FitAnswer& a) { return !a.label.engine_support; });
  if (unsupported) {
    console.paragraph("* " + engine_line(query) + " cannot run it; shown for comparison", 2);
  }
}

void print_failure(Console& console,
                   const Query& query,
                   const Options& options,
                   const FitAnswer& best) {
  console.line(console.styled("Nothing fits", Style::bad) + ": limited by " + best.limited_by +
               ". Any one of these would do:");
  const std::int64_t context = std::max<std::int64_t>(1, best.report.context_tokens);
  for (const std::string& remedy : remedies(query, options, best.cache_case, context)) {
    console.paragraph("- " + remedy, 2);
  }
}

}  // namespace

void print_fit(Console& console,
               const Query& query,
               const Options& options,
               const std::vector<FitAnswer>& answers) {
  const FitAnswer& best = best_of(options, answers);
  if (!console.quiet) {
    console.line(console.styled(model_line(query.model), Style::bold));
    console.paragraph(machine_line(query.machine) + "; " + engine_line(query));
    console.line();
  }
  print_answers(console, options, answers, best);
  if (console.quiet) {
    return;
  }
  console.line();
  print_reasons(console, query, answers);
  console.line();
  if (best.max_context_tokens == 0) {
    print_failure(console, query, options, best);
    console.line();
    print_ledger(console, best.report.ledger, query.machine);
    return;
  }
  console.paragraph(console.styled("Longest", Style::bold) + ": " + best.label.id + ", " +
                    type_pair(best.label.k, best.label.v) + " cache, " +
                    thousands(best.max_context_tokens) + " tokens x " + thousands(best.sequences) +
                    (best.sequences == 1 ? " sequence" : " sequences"));
  if (best.placement) {
    console.paragraph(placement_line(*best.placement), 2);
  }
  print_ledger(console, best.report.ledger, query.machine);
  if (!best.command.empty()) {
    console.line();
    console.line("  " + best.command);
  }
}

}  // namespace kvfathom::cli
