// The tables of `kvfathom speed`.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>

#include "cli/format.h"
#include "cli/headline.h"
#include "cli/speed.h"
#include "cli/table.h"

namespace kvfathom::cli {
namespace {

/// A bar of at most `width` cells in eighths, or of '#'.
std::string bar(double share, int width, bool utf8) {
  constexpr std::array<const char*, 8> kEighths{"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int eighths = static_cast<int>(std::lround(share * width * 8.0));
  std::string text;
  for (int i = 0; i < eighths / 8; ++i) {
    text += utf8 ? "█" : "#";
  }
  return utf8 ? text + kEighths.at(static_cast<std::size_t>(eighths % 8)) : text;
}

double rate(const SpeedPoint& point) {
  return point.tokens() / point.step.time_s.value;
}

std::string rate_interval(const SpeedPoint& point) {
  return rounded(point.tokens() / point.step.time_s.high) + " - " +
         rounded(point.tokens() / point.step.time_s.low);
}

Cell bound_cell(const SpeedPoint& point) {
  return point.fits ? Cell{std::string(name(point.step.bound))} : Cell{"does not fit", Style::bad};
}

constexpr int kBarWidth = 10;
constexpr int kWidthWithBars = 92;  // of a terminal

void print_by_context(Console& console, const SpeedCase& one, const SpeedAnswer& answer) {
  Table table{.columns = {{"context", Align::right}}, .rows = {}};
  if (answer.prompts) {
    table.columns.push_back({"prefill tok/s", Align::right});
    table.columns.push_back({"TTFT", Align::right});
  }
  for (const char* title : {"TPOT", "tok/s", "90 %"}) {
    table.columns.push_back({title, Align::right});
  }
  table.columns.push_back({"waits for"});
  const bool bars = console.terminal.width >= kWidthWithBars;
  if (bars) {
    table.columns.push_back({""});
  }
  double fastest = 0.0;
  for (const SpeedPoint& point : one.by_context) {
    fastest = point.phase == Phase::decode ? std::max(fastest, rate(point)) : fastest;
  }
  std::vector<Cell> row;
  for (const SpeedPoint& point : one.by_context) {
    if (row.empty()) {
      row.push_back({thousands(point.context_tokens)});
    }
    if (point.phase == Phase::prefill) {
      row.push_back({rounded(rate(point))});
      row.push_back({duration(point.step.time_s.value)});
      continue;
    }
    row.push_back({duration(point.tpot_s())});
    row.push_back({rounded(rate(point))});
    row.push_back({rate_interval(point)});
    row.push_back(bound_cell(point));
    if (bars) {
      row.push_back({bar(rate(point) / fastest, kBarWidth, console.terminal.utf8), Style::accent});
    }
    table.rows.push_back(std::move(row));
    row.clear();
  }
  print(console, table);
}

void print_by_batch(Console& console, const SpeedCase& one, const SpeedAnswer& answer) {
  console.line();
  console.paragraph("Decode of several sequences of " + thousands(answer.context_tokens) +
                    " tokens each:");
  Table table{.columns = {{"batch", Align::right},
                          {"TPOT", Align::right},
                          {"tok/s each", Align::right},
                          {"tok/s in all", Align::right},
                          {"90 %", Align::right},
                          {"waits for"}},
              .rows = {}};
  if (answer.watts) {
    table.columns.push_back({"J/token", Align::right});
  }
  for (const SpeedPoint& point : one.by_batch) {
    table.rows.push_back({{thousands(point.sequences)},
                          {duration(point.tpot_s())},
                          {rounded(1.0 / point.tpot_s())},
                          {rounded(rate(point))},
                          {rate_interval(point)},
                          bound_cell(point)});
    if (answer.watts) {
      table.rows.back().push_back({rounded(*answer.watts / rate(point))});
    }
  }
  print(console, table);
}

/// The last decode point: at the context asked for.
const SpeedPoint& at_context(const SpeedCase& one) {
  return one.by_context.back();
}

void print_comparison(Console& console, const SpeedAnswer& answer) {
  Table table{.columns = {{"scheme", Align::left, true},
                          {"cache"},
                          {"TPOT", Align::right},
                          {"tok/s", Align::right},
                          {"x native", Align::right},
                          {"waits for"},
                          {"quicker than native", Align::left, true}},
              .rows = {}};
  const double native = rate(at_context(answer.cases.front()));
  for (const SpeedCase& one : answer.cases) {
    const SpeedPoint& point = at_context(one);
    table.rows.push_back({{one.label.text},
                          {type_pair(one.label.k, one.label.v)},
                          {duration(point.tpot_s())},
                          {rounded(rate(point))},
                          {rounded(rate(point) / native)},
                          bound_cell(point),
                          {&one == &answer.cases.front() ? "" : pays_text(one.pays_from_tokens)}});
  }
  print(console, table);
}

}  // namespace

void print_speed(Console& console, const Query& query, const SpeedAnswer& answer) {
  const SpeedCase& first = answer.cases.front();
  if (!console.quiet) {
    console.line(console.styled(model_line(query.model), Style::bold));
    std::string text = engine_line(query);
    if (answer.cases.size() == 1) {
      text += ", " + first.label.text + " scheme, " + type_pair(first.label.k, first.label.v) +
              " cache";
    }
    console.paragraph(text + ", " + thousands(answer.sequences) +
                      (answer.sequences == 1 ? " sequence" : " sequences"));
    console.paragraph(machine_line(query.machine));
    console.line();
  }
  if (answer.cases.size() > 1) {
    console.paragraph("Decode at " + thousands(answer.context_tokens) + " tokens:");
    print_comparison(console, answer);
  } else {
    print_by_context(console, first, answer);
    print_by_batch(console, first, answer);
  }
  if (console.quiet) {
    return;
  }
  console.line();
  if (!answer.prompts) {
    console.paragraph("No peak rate is known of this device, so prompts have no time.");
  }
  if (answer.speculation) {
    console.paragraph("Each step drafts " + thousands(answer.speculation->n_draft_tokens) +
                      (answer.speculation->n_draft_tokens == 1 ? " token" : " tokens") +
                      " and yields " + rounded(first.by_batch.front().tokens_per_sequence) +
                      " on average at an acceptance of " + rounded(answer.speculation->acceptance) +
                      ".");
  }
  console.paragraph(first.laws);
  if (answer.watts) {
    console.paragraph("Energy is an upper bound: the GPUs at their TDP of " +
                      rounded(*answer.watts) + " W for the whole step.");
  }
}

}  // namespace kvfathom::cli
