// The tables of `kvfathom speed`.
#include <algorithm>
#include <string>

#include "cli/device_shares.h"
#include "cli/format.h"
#include "cli/headline.h"
#include "cli/ledger_table.h"
#include "cli/speed.h"
#include "cli/table.h"

namespace kvfathom::cli {
namespace {

double rate(const SpeedPoint& point) {
  return point.tokens_per_s().value;
}

std::string rate_interval(const SpeedPoint& point) {
  const Estimate rate = point.tokens_per_s();
  return interval(rate.low, rate.high);
}

Cell bound_cell(const SpeedPoint& point) {
  return point.fits ? Cell{std::string(name(point.step.bound))} : Cell{"does not fit", Style::bad};
}

constexpr int kBarWidth = 10;
// What a narrow terminal does without, the last first.
constexpr int kTold = 1;  // by another column: TTFT, tok/s, TPOT
constexpr int kTtftInterval = 2;
constexpr int kBar = 3;

void print_by_context(Console& console, const SpeedCase& one, const SpeedAnswer& answer) {
  Table table{.columns = {{"context", Align::right}}, .rows = {}};
  if (answer.prompts) {
    table.columns.push_back({"prefill tok/s", Align::right, false, kTold});
    table.columns.push_back({"TTFT", Align::right});
    table.columns.push_back({"90 %", Align::right, false, kTtftInterval});
  }
  for (const char* title : {"TPOT", "tok/s", "90 %"}) {
    table.columns.push_back({title, Align::right});
  }
  table.columns.push_back({"waits for"});
  table.columns.push_back({"", Align::left, false, kBar});
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
      row.push_back({duration_interval(point.step.time_s.low, point.step.time_s.high)});
      continue;
    }
    row.push_back({duration(point.tpot_s())});
    row.push_back({rounded(rate(point))});
    row.push_back({rate_interval(point)});
    row.push_back(bound_cell(point));
    row.push_back({bar(rate(point) / fastest, kBarWidth, console.terminal.utf8), Style::accent});
    table.rows.push_back(std::move(row));
    row.clear();
  }
  print(console, table);
}

void print_by_batch(Console& console, const SpeedCase& one, const SpeedAnswer& answer) {
  console.line();
  console.paragraph("Decode of several sequences of " + counted(answer.context_tokens, "token") +
                    " each:");
  Table table{.columns = {{"batch", Align::right},
                          {"TPOT", Align::right},
                          {"tok/s each", Align::right, false, kTold},
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

/// "~": the scheme loses something; "*": the engine does not run it.
std::string marks(const SchemeLabel& label) {
  return std::string(label.exact ? "" : "~") + (label.engine_support ? "" : "*");
}

void print_comparison(Console& console, const SpeedAnswer& answer) {
  Table table{.columns = {{"scheme", Align::left, true},
                          {""},
                          {"cache"},
                          {"TPOT", Align::right, false, kTold},
                          {"tok/s", Align::right},
                          {"x native", Align::right},
                          {"waits for"},
                          {"beats native"}},
              .rows = {}};
  if (answer.watts) {
    table.columns.push_back({"J/token", Align::right});
  }
  const double native = rate(at_context(answer.cases.front()));
  for (const SpeedCase& one : answer.cases) {
    const SpeedPoint& point = at_context(one);
    table.rows.push_back({{one.label.text},
                          {marks(one.label)},
                          {type_pair(one.label.k, one.label.v)},
                          {duration(point.tpot_s())},
                          {rounded(rate(point))},
                          {rounded(rate(point) / native)},
                          bound_cell(point),
                          {&one == &answer.cases.front() ? "" : pays_text(one.pays)}});
    if (answer.watts) {
      table.rows.back().push_back({rounded(*answer.watts / rate(point))});
    }
  }
  print(console, table);
}

/// What the marks of the schemes mean, of those that are there.
void print_marks(Console& console, const Query& query, const SpeedAnswer& answer) {
  const auto any = [&](bool SchemeLabel::*fine) {
    return std::ranges::any_of(answer.cases,
                               [&](const SpeedCase& one) { return !(one.label.*fine); });
  };
  std::string text =
      any(&SchemeLabel::exact) ? "~ lossy (fit --scheme says what is known of it)" : "";
  if (any(&SchemeLabel::engine_support)) {
    text += (text.empty() ? "* " : "; * ") + versioned_engine(query) + " does not run it";
  }
  if (!text.empty()) {
    console.paragraph(text + ".");
  }
}

std::string speculation_sentence(const Query& query, const SpeedAnswer& answer) {
  const double yields = answer.cases.front().by_batch.front().tokens_per_sequence;
  return "Each step drafts " + counted(answer.speculation->n_draft_tokens, "token") + " by " +
         (query.draft ? printable(query.draft->model.spec.name)
                      : "the model's own prediction block") +
         " and yields " + rounded(yields) + " on average at an acceptance of " +
         rounded(answer.speculation->acceptance) + ".";
}

bool brings_from_host(const SpeedCase& one) {
  return std::ranges::any_of(one.by_context, [](const SpeedPoint& point) {
    return std::ranges::any_of(point.ops,
                               [](const SpeedOp& op) { return op.op.op_class.pageable; });
  });
}

/// What the numbers assume, a paragraph each.
void print_notes(Console& console, const Query& query, const SpeedAnswer& answer) {
  const std::int64_t trained = query.model.spec.trained_context_tokens;
  if (trained > 0 && answer.context_tokens > trained) {
    console.paragraph("The model was trained for " + counted(trained, "token") + ".");
  }
  if (runs_on_host(query.machine)) {
    console.paragraph("Everything runs on the host.");
  }
  if (brings_from_host(answer.cases.front())) {
    console.paragraph(
        "What is on the host is computed there in steps of less than " +
        counted(kOffloadTokens, "token") +
        "; longer steps, and so prompts and large batches, bring it to the GPU first.");
  }
  if (!answer.prompts) {
    console.paragraph(
        "No peak rate is known of this device: prompts have no time, and steps are priced by what "
        "they read alone, so that large batches may take longer.");
  }
  if (answer.speculation) {
    console.paragraph(speculation_sentence(query, answer));
  }
  console.paragraph(answer.cases.front().laws);
  if (answer.watts) {
    console.paragraph("Energy is an upper bound: the GPUs at their TDP of " +
                      rounded(*answer.watts) + " W for the whole step.");
  }
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
    console.paragraph(text + ", " + counted(answer.sequences, "sequence"));
    console.paragraph(machine_line(query.machine));
    console.line();
  }
  if (answer.cases.size() > 1) {
    console.paragraph("Decode at " + counted(answer.context_tokens, "token") + ":");
    print_comparison(console, answer);
  } else {
    print_by_context(console, first, answer);
    print_by_batch(console, first, answer);
  }
  if (console.quiet) {
    return;
  }
  console.line();
  if (answer.cases.size() > 1) {
    print_marks(console, query, answer);
  }
  print_notes(console, query, answer);
}

}  // namespace kvfathom::cli
