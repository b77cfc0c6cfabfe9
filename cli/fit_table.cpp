#include <algorithm>

#include "cli/auto_placement.h"
#include "cli/fit.h"
#include "cli/fit_speed.h"
#include "cli/format.h"
#include "cli/headline.h"
#include "cli/ledger_table.h"
#include "cli/quality.h"
#include "cli/remedies.h"
#include "cli/sentences.h"
#include "cli/table.h"

namespace kvfathom::cli {
namespace {

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

// What a narrow terminal does without, the last first.
constexpr int kLimitedBy = 1;
constexpr int kBytesPerToken = 2;
constexpr int kBar = kTtftInterval + 1;
static_assert(kBytesPerToken < kTtftInterval);

void print_answers(Console& console,
                   const Options& options,
                   const std::vector<FitAnswer>& answers,
                   const FitAnswer& best) {
  constexpr int kOtherColumns = 52;
  int longest_label = 14;
  for (const FitAnswer& answer : answers) {
    longest_label = std::max(longest_label, display_width(marked(answer.label, answer.cache_case)));
  }
  constexpr int kFewestCells = 4;  // fewer tell nothing
  constexpr int kMostCells = 30;
  constexpr int kCellsBesideSpeeds = 10;
  const int room = console.terminal.width - kOtherColumns - longest_label;
  const int bar_cells = options.with_speed    ? kCellsBesideSpeeds
                        : room < kFewestCells ? 0
                                              : std::min(room, kMostCells);
  const auto most = static_cast<double>(std::max<std::int64_t>(1, asked_for(options, best)));
  Table table{.columns = {{"scheme"},
                          {"cache"},
                          {"B/token", Align::right, false, kBytesPerToken},
                          {title_of(options), Align::right},
                          {"", Align::left, false, kBar},
                          {"limited by", Align::left, false, kLimitedBy}},
              .rows = {}};
  if (options.with_speed) {
    add_speed_columns(table);
  }
  bool by_formula = false;
  for (const FitAnswer& answer : answers) {
    if (answer.cache_case.by_formula && !by_formula) {
      by_formula = true;
      table.rows.emplace_back();
      table.rows.push_back({{"What " + answers.front().engine +
                             " does not run, by the formula, without its own memory:"}});
    }
    const Style style =
        &answer == &best && answer.max_context_tokens > 0 ? Style::good : style_of(answer);
    const std::int64_t n = asked_for(options, answer);
    table.rows.push_back(
        {{marked(answer.label, answer.cache_case), style},
         {type_pair(answer.label.k, answer.label.v), style},
         {thousands(device_bytes_per_token(answer.report.cache)), style},
         {thousands(n), style},
         {bar(static_cast<double>(n) / most, bar_cells, console.terminal.utf8), style},
         {answer.limited_by, style}});
    if (options.with_speed) {
      add_speed_cells(table.rows.back(), answer, style);
    }
  }
  print(console, table);
}

/// One line per scheme: what it stores, and how much more that is than the model's own.
/// "17.7", "0.18": with two digits below one.
std::string times(std::int64_t part, std::int64_t whole) {
  const std::int64_t hundredths = part * 100 / whole;
  const std::string digits = std::to_string(100 + hundredths % 100).substr(1);
  return thousands(hundredths / 100) + "." + (hundredths < 100 ? digits : digits.substr(0, 1));
}

void print_notes(Console& console,
                 const Query& query,
                 const Options& options,
                 const std::vector<FitAnswer>& answers) {
  Sentences notes;
  for (const FitAnswer& answer : answers) {
    for (const std::string& note : answer.label.notes) {
      notes.add(answer.label.text, note);
    }
  }
  Sentences reasons;
  for (const LeftOut& scheme : left_out(query, options)) {
    reasons.add(scheme.scheme, scheme.reason);
  }
  if (!notes.rows().empty()) {
    console.line();
  }
  for (const auto& [schemes, note] : notes.rows()) {
    console.paragraph(std::string(schemes).append(": ").append(note), 2);
  }
  for (const auto& [schemes, reason] : reasons.rows()) {
    console.paragraph(std::string(schemes).append(" not here: ").append(reason), 2);
  }
}

void print_reasons(Console& console,
                   const Query& query,
                   const Options& options,
                   const std::vector<FitAnswer>& answers) {
  std::vector<std::string> told;
  const FitAnswer& first = answers.front();
  const std::int64_t native = first.label.text == "native" ? first.report.cache.bytes_per_token : 0;
  for (const FitAnswer& answer : answers) {
    if (std::ranges::find(told, answer.label.text) != told.end()) {
      continue;
    }
    told.push_back(answer.label.text);
    std::string text =
        answer.label.text + ": " + stored_line(query.model.spec, request_of(answer.cache_case));
    const std::int64_t per_token = device_bytes_per_token(answer.report.cache);
    constexpr std::int64_t kHundredths = 100;
    if (answer.label.text != "native" && native > 0 && per_token * kHundredths >= native) {
      text += "; " + times(per_token, native) + " x native";
    }
    console.paragraph(text, 2);
  }
  if (query.machine.n_gpus > query.settings.data_parallel) {
    console.paragraph("B/token: of all GPUs together", 2);
  }
  print_draft_line(console, query, answers.front().report.ledger);
  print_notes(console, query, options, answers);
  if (std::ranges::any_of(answers, [](const FitAnswer& answer) {
        return is_for_comparison(answer.label, answer.cache_case);
      })) {
    console.paragraph("* " + versioned_engine(query) + " cannot run it; shown for comparison", 2);
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

/// llama.cpp's fit moves layers to the host for no more than its least context, unless more is
/// asked for by name.
void print_longer(Console& console,
                  const Query& query,
                  const Options& options,
                  const FitAnswer& best) {
  if (!query.auto_context_tokens || options.users || best.limited_by == "model" ||
      best.max_context_tokens > llama_cpp::kFitContextTokens) {
    return;
  }
  const auto longer = longer_if_named(query, best.cache_case, best.max_context_tokens);
  if (longer) {
    console.paragraph("llama.cpp's fit moves no more to the host than " +
                          thousands(llama_cpp::kFitContextTokens) +
                          " tokens need; memory --auto --context " + std::to_string(*longer) +
                          " asks for more, and fits.",
                      2);
  }
}

}  // namespace

void print_published(Console& console, const std::vector<FitAnswer>& answers) {
  std::vector<QualityRow> rows;
  rows.reserve(answers.size());
  for (const FitAnswer& answer : answers) {
    rows.push_back(quality_row(answer.label, answer.cache_case));
  }
  print_quality_lines(console, rows);
}

void print_fit(Console& console,
               const Query& query,
               const Options& options,
               const std::vector<FitAnswer>& answers) {
  const FitAnswer& best = best_of(options, answers);
  if (!console.quiet) {
    console.line(console.styled(model_line(query.model), Style::bold));
    console.paragraph(machine_line(query.machine) + "; " + engine_line(query));
    print_default_refused(console, query);
    console.line();
  }
  print_answers(console, options, answers, best);
  if (console.quiet) {
    return;
  }
  console.line();
  print_reasons(console, query, options, answers);
  print_published(console, answers);
  print_speed_notes(console, answers, RowsAre::schemes);
  console.line();
  if (best.max_context_tokens == 0) {
    print_failure(console, query, options, best);
    console.line();
    print_ledger(console, best.report, query.machine);
    return;
  }
  console.paragraph(console.styled(options.users ? "Most" : "Longest", Style::bold) + ": " +
                    best.label.text + ", " + type_pair(best.label.k, best.label.v) + " cache, " +
                    extent(best.max_context_tokens, best.sequences));
  if (best.placement) {
    console.paragraph(placement_line(*best.placement), 2);
  }
  print_longer(console, query, options, best);
  print_ledger(console, best.report, query.machine);
  print_command(console, query, best.max_context_tokens, best.command);
}

}  // namespace kvfathom::cli
