// The table of `fit --engine all`: engines side by side, and why they differ.
#include <algorithm>
#include <array>
#include <iterator>

#include "cli/fit.h"
#include "cli/fit_speed.h"
#include "cli/format.h"
#include "cli/headline.h"
#include "cli/quality.h"
#include "cli/sentences.h"
#include "cli/table.h"

namespace kvfathom::cli {
namespace {

// What a narrow terminal does without, the last first.
constexpr int kScheme = 1;  // where it is the same in every row
constexpr int kBytesPerToken = 2;
constexpr int kLimitedBy = 3;
static_assert(kLimitedBy < kTtftInterval);

bool has_one_scheme(const std::vector<FitAnswer>& answers) {
  return std::ranges::all_of(answers, [&](const FitAnswer& answer) {
    return answer.label.text == answers.front().label.text;
  });
}

void print_answers(Console& console,
                   const Options& options,
                   const std::vector<FitAnswer>& answers) {
  std::int64_t most = 1;
  for (const FitAnswer& answer : answers) {
    most = std::max(most, asked_for(options, answer));
  }
  const bool one_scheme = has_one_scheme(answers);
  const bool no_room = !one_scheme && !options.users;
  Table table{.columns = {{"engine"},
                          {"scheme", Align::left, false, one_scheme ? kScheme : 0},
                          {"cache"},
                          {"B/token", Align::right, false, kBytesPerToken},
                          {no_room ? "longest" : title_of(options), Align::right},
                          {"limited by", Align::left, false, kLimitedBy}},
              .rows = {}};
  if (options.with_speed) {
    add_speed_columns(table);
  }
  for (const FitAnswer& answer : answers) {
    const std::int64_t n = asked_for(options, answer);
    const Style style = n == 0 ? Style::bad : n == most ? Style::good : Style::plain;
    table.rows.push_back({{answer.engine, style},
                          {marked(answer.label, answer.cache_case), style},
                          {type_pair(answer.label.k, answer.label.v), style},
                          {thousands(device_bytes_per_token(answer.report.cache)), style},
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

/// "native", and of an engine's other cache types "native q8_0".
std::string scheme_and_type(const std::vector<FitAnswer>& answers, const FitAnswer& answer) {
  const auto first = std::ranges::find(answers, answer.engine_name, &FitAnswer::engine_name)->label;
  const bool usual = answer.label.k == first.k && answer.label.v == first.v;
  return answer.label.text + (usual ? "" : " " + type_pair(answer.label.k, answer.label.v));
}

void print_lines(Console& console, const std::vector<FitAnswer>& answers) {
  std::vector<LedgerKind> kinds;
  std::ranges::copy_if(kShownKinds, std::back_inserter(kinds), [&](LedgerKind kind) {
    return most_bytes(answers, kind) > 0;
  });
  const bool one_scheme = has_one_scheme(answers);
  Table table{.columns = {{"GiB, at most"}}, .rows = {}};
  if (!one_scheme) {
    table.columns.push_back({"scheme"});
  }
  for (const LedgerKind kind : kinds) {
    table.columns.push_back({std::string(name(kind)), Align::right, false, give_up(answers, kind)});
  }
  for (const FitAnswer& answer : answers) {
    std::vector<Cell> row{{answer.engine_name}};
    if (!one_scheme) {
      row.push_back({scheme_and_type(answers, answer)});
    }
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

/// What an answer's lines take more or less than the base's: "; cache +0.24 GiB, runtime ..".
std::string difference_in_lines(const FitAnswer& answer, const FitAnswer& base) {
  constexpr std::int64_t kWorthNaming = std::int64_t{10} << 20;
  std::string lines;
  for (const LedgerKind kind : kShownKinds) {
    const std::int64_t more = bytes_of(answer, kind) - bytes_of(base, kind);
    if (more > kWorthNaming || more < -kWorthNaming) {
      lines += (lines.empty() ? "; " : ", ") + std::string(name(kind)) + (more < 0 ? " -" : " +") +
               gib(more < 0 ? -more : more);
    }
  }
  return lines;
}

/// Against the formula's answer for the same scheme, which adds nothing: what this one takes, line
/// by line, and what a token costs in it.
std::string difference(const Options& options, const FitAnswer& answer, const FitAnswer& base) {
  const std::int64_t n = asked_for(options, answer) - asked_for(options, base);
  const std::string unit =
      std::string(options.users ? " sequence" : " token") + (n == 1 || n == -1 ? "" : "s");
  std::string text;
  if (n == 0) {
    text += "as many" + unit + " as " + base.engine_name;
  } else {
    text += thousands(n < 0 ? -n : n) + (n < 0 ? " fewer" : " more") + unit + " than " +
            base.engine_name;
  }
  text += difference_in_lines(answer, base);
  const std::int64_t own = answer.report.cache.bytes_per_token;
  const std::int64_t formula = base.report.cache.bytes_per_token;
  if (own != formula && own > 0 && formula > 0) {
    text += "; a token takes " + factor(own, formula) + " x the bytes";
  }
  return text;
}

/// One sentence for each engine and scheme, in the first type of its cache.
void print_differences(Console& console,
                       const Options& options,
                       const std::vector<FitAnswer>& answers) {
  const bool one_scheme = has_one_scheme(answers);
  const std::string& formula = answers.front().engine_name;
  const auto first_of = [&](const std::string& engine, const std::string& scheme) {
    return std::ranges::find_if(answers, [&](const FitAnswer& one) {
      return one.engine_name == engine && one.label.text == scheme;
    });
  };
  Sentences sentences;
  for (auto answer = answers.begin(); answer != answers.end(); ++answer) {
    const std::string& scheme = answer->label.text;
    if (answer->engine_name == formula || first_of(answer->engine_name, scheme) != answer) {
      continue;
    }
    const auto base = first_of(formula, scheme);
    sentences.add(answer->engine_name + (one_scheme ? "" : " " + scheme),
                  difference(options, *answer, base == answers.end() ? answers.front() : *base));
  }
  for (const auto& [names, text] : sentences.rows()) {
    console.paragraph(std::string("- ").append(names).append(": ").append(text), 2);
  }
}

void print_schemes(Console& console,
                   const Options& options,
                   const std::vector<FitAnswer>& answers) {
  print_published(console, answers);
  if (std::ranges::any_of(answers, [](const FitAnswer& answer) {
        return is_for_comparison(answer.label, answer.cache_case);
      })) {
    console.paragraph("* the engine cannot run it; shown for comparison", 2);
  }
  if (wants_all_schemes(options)) {
    console.line();
    console.paragraph("What an engine cannot run is a row of " + answers.front().engine_name +
                          " alone: by the formula, without an engine's own memory.",
                      2);
  }
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
  if (query.machine.n_gpus > query.settings.data_parallel) {
    console.paragraph("B/token: of all GPUs together; GiB: of the first", 2);
  }
  print_differences(console, options, answers);
  for (const RefusedEngine& one : refused) {
    console.paragraph("- " + one.engine + " refused: " + printable(one.reason), 2);
  }
  print_schemes(console, options, answers);
  print_speed_notes(console, answers, RowsAre::engines);
}

}  // namespace kvfathom::cli
