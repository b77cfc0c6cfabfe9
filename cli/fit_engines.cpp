// The table of `fit --engine all`: engines side by side, and why they differ.
#include <algorithm>
#include <array>
#include <iterator>

#include "cli/fit.h"
#include "cli/fit_speed.h"
#include "cli/format.h"
#include "cli/headline.h"
#include "cli/table.h"

namespace kvfathom::cli {
namespace {

// What a narrow terminal does without, the last first.
constexpr int kLimitedBy = 1;
constexpr int kScheme = 2;  // where it is the same in every row
constexpr int kBytesPerToken = 3;
static_assert(kBytesPerToken < kTtftInterval);

void print_answers(Console& console,
                   const Options& options,
                   const std::vector<FitAnswer>& answers) {
  std::int64_t most = 1;
  for (const FitAnswer& answer : answers) {
    most = std::max(most, asked_for(options, answer));
  }
  const bool one_scheme = std::ranges::all_of(answers, [&](const FitAnswer& answer) {
    return answer.label.text == answers.front().label.text;
  });
  Table table{.columns = {{"engine"},
                          {"scheme", Align::left, false, one_scheme ? kScheme : 0},
                          {"cache"},
                          {"B/token", Align::right, false, kBytesPerToken},
                          {title_of(options), Align::right},
                          {"limited by", Align::left, false, kLimitedBy}},
              .rows = {}};
  if (options.with_speed) {
    add_speed_columns(table);
  }
  for (const FitAnswer& answer : answers) {
    const std::int64_t n = asked_for(options, answer);
    const Style style = n == 0 ? Style::bad : n == most ? Style::good : Style::plain;
    table.rows.push_back({{answer.engine, style},
                          {answer.label.id + (answer.label.engine_support ? "" : " *"), style},
                          {type_pair(answer.label.k, answer.label.v), style},
                          {thousands(answer.report.cache.bytes_per_token), style},
                          {thousands(n), style},
                          {answer.limited_by, style}});
    if (options.with_speed) {
      add_speed_cells(table.rows.back(), answer, style);
    }
  }
  print(console, table);
}

/// What one kind of line may take on the first device: the high bound, by which it must fit.
std::int64_t bytes_of(const FitAnswer& answer, LedgerKind kind) {
  const auto& lines = answer.report.ledger.lines;
  std::int64_t sum = 0;
  for (const LedgerLine& line : lines) {
    sum += line.device == lines.front().device && line.kind == kind ? line.high_bytes : 0;
  }
  return sum;
}

constexpr std::array<LedgerKind, 12> kShownKinds{LedgerKind::weights,
                                                 LedgerKind::cache,
                                                 LedgerKind::state,
                                                 LedgerKind::extra_weights,
                                                 LedgerKind::compute,
                                                 LedgerKind::output,
                                                 LedgerKind::vision,
                                                 LedgerKind::draft,
                                                 LedgerKind::lora,
                                                 LedgerKind::runtime,
                                                 LedgerKind::graphs,
                                                 LedgerKind::reserve};

std::int64_t most_bytes(const std::vector<FitAnswer>& answers, LedgerKind kind) {
  std::int64_t most = 0;
  for (const FitAnswer& answer : answers) {
    most = std::max(most, bytes_of(answer, kind));
  }
  return most;
}

/// The smallest line is left out first where the terminal is narrow, but not what was asked for.
int give_up(const std::vector<FitAnswer>& answers, LedgerKind kind) {
  if (kind == LedgerKind::weights || kind == LedgerKind::cache || kind == LedgerKind::draft) {
    return 0;
  }
  const std::int64_t own = most_bytes(answers, kind);
  return 1 + static_cast<int>(std::ranges::count_if(
                 kShownKinds, [&](LedgerKind other) { return most_bytes(answers, other) > own; }));
}

void print_lines(Console& console, const std::vector<FitAnswer>& answers) {
  std::vector<LedgerKind> kinds;
  std::ranges::copy_if(kShownKinds, std::back_inserter(kinds), [&](LedgerKind kind) {
    return most_bytes(answers, kind) > 0;
  });
  Table table{.columns = {{"GiB, at most"}}, .rows = {}};
  for (const LedgerKind kind : kinds) {
    table.columns.push_back({std::string(name(kind)), Align::right, false, give_up(answers, kind)});
  }
  for (const FitAnswer& answer : answers) {
    std::vector<Cell> row{{answer.engine_name}};
    for (const LedgerKind kind : kinds) {
      const std::int64_t bytes = bytes_of(answer, kind);
      row.push_back({bytes == 0 ? "-" : gib_number(bytes)});
    }
    table.rows.push_back(std::move(row));
  }
  print(console, table);
}

std::string factor(std::int64_t value, std::int64_t base) {
  const std::int64_t hundredths = value * 100 / base;
  const std::string digits = std::to_string(hundredths % 100);
  return std::to_string(hundredths / 100) + "." + (digits.size() == 1 ? "0" : "") + digits;
}

/// Against the first answer, which adds nothing to the formula: what this one takes beside its
/// cache, line by line, and what a token costs in it.
std::string difference(const Options& options, const FitAnswer& answer, const FitAnswer& base) {
  const std::int64_t n = asked_for(options, answer) - asked_for(options, base);
  const std::string unit =
      std::string(options.users ? " sequence" : " token") + (n == 1 || n == -1 ? "" : "s");
  std::string text = answer.engine_name + ": ";
  if (n == 0) {
    text += "as many" + unit + " as " + base.engine_name;
  } else {
    text += thousands(n < 0 ? -n : n) + (n < 0 ? " fewer" : " more") + unit + " than " +
            base.engine_name;
  }
  std::string lines;
  for (const LedgerKind kind : kShownKinds) {
    if (kind == LedgerKind::cache || kind == LedgerKind::state) {
      continue;
    }
    const std::int64_t more = bytes_of(answer, kind) - bytes_of(base, kind);
    constexpr std::int64_t kWorthNaming = std::int64_t{10} << 20;
    if (more > kWorthNaming || more < -kWorthNaming) {
      lines += (lines.empty() ? "; " : ", ") + std::string(name(kind)) + (more < 0 ? " -" : " +") +
               gib(more < 0 ? -more : more);
    }
  }
  text += lines;
  const std::int64_t own = answer.report.cache.bytes_per_token;
  const std::int64_t formula = base.report.cache.bytes_per_token;
  if (own != formula && formula > 0) {
    text += "; a token takes " + factor(own, formula) + " x the bytes";
  }
  return text;
}

}  // namespace

void print_engines(Console& console,
                   const Query& query,
                   const Options& options,
                   const std::vector<FitAnswer>& answers,
                   const std::vector<RefusedEngine>& refused) {
  if (!console.quiet) {
    console.line(console.styled(model_line(query.model), Style::bold));
    const std::string& beside = answers.front().beside;
    console.paragraph(machine_line(query.machine) + (beside.empty() ? "" : "; " + beside));
    console.line();
  }
  print_answers(console, options, answers);
  if (console.quiet) {
    return;
  }
  console.line();
  print_lines(console, answers);
  console.line();
  for (std::size_t i = 1; i < answers.size(); ++i) {
    console.paragraph("- " + difference(options, answers[i], answers.front()), 2);
  }
  for (const RefusedEngine& one : refused) {
    console.paragraph("- " + one.engine + " refused: " + printable(one.reason), 2);
  }
  print_speed_notes(console, answers, RowsAre::engines);
}

}  // namespace kvfathom::cli
