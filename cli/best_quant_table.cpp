// How `fit --best-quant` is printed.
#include <algorithm>
#include <cmath>

#include "cli/best_quant.h"
#include "cli/format.h"
#include "cli/headline.h"
#include "cli/ledger_table.h"
#include "cli/quality.h"
#include "cli/table.h"

namespace kvfathom::cli {
namespace {

/// "4.85", "16.00".
std::string bits_text(double bits) {
  const auto hundredths = static_cast<std::int64_t>(std::lround(bits * 100));
  return std::to_string(hundredths / 100) + "." + std::to_string(100 + hundredths % 100).substr(1);
}

std::string pair_text(const QuantAnswer& answer) {
  return answer.weights + " weights (" + bits_text(answer.pair.weight_bits) +
         " bits) with a cache of " + type_pair(answer.label.k, answer.label.v) + " (" +
         bits_text(answer.pair.cache_bits) + ")";
}

void print_pairs(Console& console, const QuantSearch& search, std::optional<std::size_t> best) {
  Table table{.columns = {{"weights"},
                          {"bits", Align::right},
                          {"cache"},
                          {"bits", Align::right},
                          {"longest context", Align::right},
                          {""}},
              .rows = {}};
  const std::vector<std::size_t> unbeaten = unbeaten_pairs(search.pairs);
  for (const std::size_t i : unbeaten) {
    const QuantAnswer& answer = search.answers[i];
    const Style style = i == best ? Style::good : Style::plain;
    table.rows.push_back({{answer.weights, style},
                          {bits_text(answer.pair.weight_bits), style},
                          {type_pair(answer.label.k, answer.label.v), style},
                          {bits_text(answer.pair.cache_bits), style},
                          {thousands(answer.pair.longest_context_tokens), style},
                          {i == best ? "<- best" : "", style}});
  }
  print(console, table);
}

/// "4.61 GiB on gpu0, or at most 4.93 GiB": the ledger's nominal bytes, by which nothing may be
/// missing, and the high ones, which must fit.
std::string lack_text(const MemoryLedger& ledger, const Machine& machine) {
  std::string text;
  for (const Capacity& capacity : machine.capacities) {
    const DeviceTotal total = held(ledger, capacity);
    const std::int64_t missing = total.bytes - capacity.bytes;
    const std::int64_t most = total.high_bytes - capacity.bytes;
    if (most <= 0) {
      continue;
    }
    const std::string on = " on " + name(capacity.device);
    text += text.empty() ? "" : "; ";
    text += missing > 0 ? gib(missing) + on : "";
    text += missing > 0 && most > missing ? ", or " : "";
    text += most > missing ? "at most " + gib(most) : "";
    text += missing > 0 ? "" : on;
  }
  return text;
}

}  // namespace

std::string best_quant_sentence(const QuantSearch& search, const Machine& machine) {
  const std::string tokens = counted(search.context_tokens, "token");
  const std::string tried = thousands(static_cast<std::int64_t>(search.answers.size()));
  const auto best = finest_pair(search.pairs);
  if (!best) {
    const QuantAnswer& nearest = nearest_to_fit(search);
    return "Nothing fits: of " + tried + " pairs none holds " + tokens + "; " + pair_text(nearest) +
           " lacks least: " + lack_text(nearest.report.ledger, machine);
  }
  const auto n_fit = std::ranges::count_if(search.pairs, &PrecisionPair::fits);
  const QuantAnswer& answer = search.answers[*best];
  return pair_text(answer) + ": of the " + thousands(n_fit) + " of " + tried + " pairs that hold " +
         tokens + " its coarser part keeps most bits, and of equals its weights do";
}

void print_best_quant(Console& console, const Query& query, const QuantSearch& search) {
  const auto best = finest_pair(search.pairs);
  if (!console.quiet) {
    console.line(console.styled(printable(query.model.spec.name) + ", " +
                                    extent(search.context_tokens, query.settings.sequences),
                                Style::bold));
    console.paragraph(machine_line(query.machine) + "; " + engine_line(query));
    print_default_refused(console, query);
    console.line();
  }
  if (best) {
    print_pairs(console, search, best);
  }
  if (console.quiet) {
    return;
  }
  if (best) {
    console.paragraph("Each row: no other pair that fits keeps as much of all three.", 2);
    console.line();
  }
  console.paragraph((best ? console.styled("Best", Style::bold) + ": " : "") +
                    best_quant_sentence(search, query.machine) + ".");
  const QuantAnswer& shown = best ? search.answers[*best] : nearest_to_fit(search);
  console.paragraph("Bits are counted, quality is not predicted.");
  if (!shown.label.exact) {
    print_quality(console, shown.label.quality);
  }
  for (const RefusedWeights& one : search.refused) {
    console.paragraph("- " + one.weights + " refused: " + printable(one.reason), 2);
  }
  console.line();
  print_ledger(console, shown.report, query.machine);
  print_command(console, query, search.context_tokens, shown.command);
}

}  // namespace kvfathom::cli
