// The tables of `kvfathom crossover`.
#include <algorithm>
#include <cmath>
#include <string>

#include "cli/crossover.h"
#include "cli/format.h"
#include "cli/headline.h"
#include "cli/table.h"

namespace kvfathom::cli {
namespace {

std::string rate_text(double bytes_per_s) {
  return rounded(bytes_per_s / 1e9) + " GB/s";
}

/// Lengths at which fetching is the quicker: "1-784, 11,265+", "all" or "none"; of more than three
/// spans the first and the last.
std::string fetch_wins_at(const std::vector<Reign>& reigns) {
  if (reigns.size() == 1) {
    return reigns.front().fetch ? "all" : "none";
  }
  constexpr std::size_t kMostSpans = 3;
  std::vector<std::string> spans;
  for (std::size_t i = 0; i < reigns.size(); ++i) {
    if (reigns[i].fetch) {
      const bool is_last = i + 1 == reigns.size();
      spans.push_back(thousands(reigns[i].from_tokens) +
                      (is_last ? "+" : "-" + thousands(reigns[i + 1].from_tokens - 1)));
    }
  }
  if (spans.size() > kMostSpans) {
    return spans.front() + ", .., " + spans.back();
  }
  std::string text;
  for (const std::string& span : spans) {
    text += (text.empty() ? "" : ", ") + span;
  }
  return text;
}

std::vector<Cell> contest_row(const std::string& from, const TierLink& tier, const Contest& one) {
  const double even = one.even_bandwidth_bytes_per_s;
  return {{from},
          {rate_text(tier.link.bandwidth.value())},
          {duration(one.fetch_s.value)},
          {duration(one.recompute_s.value)},
          {even > 0.0 ? rate_text(even) : "none"},
          {fetch_wins_at(one.reigns)}};
}

void print_tiers(Console& console, const CrossoverAnswer& answer) {
  Table table{.columns = {{"from"},
                          {"rate", Align::right},
                          {"fetch", Align::right},
                          {"recompute", Align::right},
                          {"even at", Align::right},
                          {"fetch wins at", Align::left, true}},
              .rows = {}};
  bool none_is_even = false;
  for (const TierAnswer& tier : answer.tiers) {
    table.rows.push_back(contest_row(tier.tier.name, tier.tier, tier.idle.contest));
    none_is_even |= tier.idle.contest.even_bandwidth_bytes_per_s <= 0.0;
    if (tier.loaded) {
      table.rows.push_back(contest_row("  under load", tier.tier, tier.loaded->contest));
      none_is_even |= tier.loaded->contest.even_bandwidth_bytes_per_s <= 0.0;
    }
  }
  print(console, table);
  if (none_is_even && !console.quiet) {
    console.paragraph("  Even at none: at any rate recomputing is quicker than the calls alone.",
                      2);
  }
}

/// Of a link that a person described, the time is no estimate.
std::string interval_text(const Estimate& time_s) {
  return time_s.low < time_s.high ? duration(time_s.low) + " - " + duration(time_s.high) : "";
}

/// "host, 52.3 GB/s"
std::string link_text(const TierAnswer& tier) {
  return tier.tier.name + ", " + rate_text(tier.tier.link.bandwidth.value());
}

/// A mix that leaves one side out is an arm that the table has.
bool repeats(const Arm& arm, const Split& split) {
  return arm.id == "split-tokens" && (split.fetched_tokens == 0 || split.recomputed_tokens == 0);
}

std::string note_of(const Arm& arm) {
  if (!arm.exact) {
    return "lossy";
  }
  return arm.how.empty() && arm.time_s.low >= arm.time_s.high ? "as given" : arm.how;
}

void print_ways(Console& console, const Ways& ways) {
  Table table{.columns = {{"way"},
                          {"moves GiB", Align::right},
                          {"time", Align::right},
                          {"90 %", Align::right},
                          {"", Align::left, true}},
              .rows = {}};
  const auto quickest = std::ranges::min_element(
      ways.arms, {}, [](const Arm& arm) { return arm.exact ? arm.time_s.value : 1e300; });
  for (const Arm& arm : ways.arms) {
    if (repeats(arm, ways.split)) {
      continue;
    }
    const Style style = &arm == &*quickest ? Style::good : Style::plain;
    table.rows.push_back({{arm.name, style},
                          {gib_number(std::llround(arm.moved_bytes))},
                          {duration(arm.time_s.value), style},
                          {interval_text(arm.time_s)},
                          {note_of(arm)}});
  }
  print(console, table);
}

void print_ways(Console& console, const TierAnswer& tier, std::int64_t tokens) {
  console.paragraph("Ways to bring " + counted(tokens, "token") + " back (" + link_text(tier) +
                    (tier.loaded ? ", idle):" : "):"));
  print_ways(console, tier.idle);
  if (tier.loaded) {
    console.line();
    console.paragraph("The same under the load:");
    print_ways(console, *tier.loaded);
  }
}

void print_decode(Console& console, const CrossoverAnswer& answer) {
  if (answer.decode.empty()) {
    return;
  }
  console.line();
  console.paragraph(
      "Schemes that rebuild or unpack at every decode step, quicker than reading K "
      "and V from the device's own memory:");
  Table table{.columns = {{"scheme"}}, .rows = {}};
  for (const std::int64_t batch : kDecodeBatches) {
    table.columns.push_back({"batch " + thousands(batch), Align::right});
  }
  for (const DecodeArm& arm : answer.decode) {
    table.rows.push_back({{arm.scheme}});
    for (const std::vector<Span>& spans : arm.pays) {
      table.rows.back().push_back({pays_text(spans)});
    }
  }
  print(console, table);
}

void print_fit(Console& console, const CrossoverAnswer& answer) {
  if (answer.fit && !answer.fit->fits) {
    const bool others = answer.busy && answer.busy->running.n_sequences > 0;
    console.paragraph("Does not fit: needs " + gib(answer.fit->needed_bytes) + " of " +
                      gib(answer.fit->capacity_bytes) +
                      (others ? ", with the sequences that decode meanwhile." : ".") +
                      " The times are those of a device that held it.");
  }
}

void print_sentences(Console& console, const CrossoverAnswer& answer) {
  for (const TierAnswer& tier : answer.tiers) {
    console.paragraph(tier.idle.contest.sentence);
    if (tier.loaded) {
      console.paragraph(tier.loaded->contest.sentence);
    }
  }
}

void print_maps(Console& console, const CrossoverAnswer& answer) {
  const std::string legend = console.terminal.utf8
                                 ? ": █ fetch by 3x, ▓ fetch, ▒ even, ░ recompute, · by 3x"
                                 : ": F fetch by 3x, f fetch, = even, r recompute, R by 3x";
  const TierAnswer& tier = answer.tiers.front();
  const auto print_both = [&](const auto& map, const auto& loaded, const std::string& of_what) {
    if (map) {
      console.line();
      console.paragraph("Who wins" + of_what + legend);
      print_map(console, *map);
    }
    if (loaded) {
      console.line();
      console.paragraph("The same under the load:");
      print_map(console, *loaded);
    }
  };
  print_both(answer.map, answer.map_loaded, " (" + tier.tier.name + ", at other rates)");
  print_both(answer.batch_map,
             answer.batch_map_loaded,
             ", several prefixes at once (" + link_text(tier) + ")");
}

void print_running(Console& console, const CrossoverAnswer& answer) {
  if (!answer.busy || answer.busy->running.n_sequences == 0) {
    return;
  }
  const std::int64_t n = answer.busy->running.n_sequences;
  console.paragraph("Recomputing holds up the " + counted(n, "sequence") +
                    (n == 1 ? " that decodes" : " that decode") +
                    " meanwhile: a token each takes " + duration(answer.running_with_chunk_s) +
                    " instead of " + duration(answer.running_step_s) + ". Fetching does not.");
}

}  // namespace

void print_crossover(Console& console, const Query& query, const CrossoverAnswer& answer) {
  if (!console.quiet) {
    console.line(console.styled(model_line(query.model), Style::bold));
    const bool is_native = answer.cache_case.scheme == CacheScheme::native;
    console.paragraph(engine_line(query) + (is_native ? "" : ", " + answer.label.text + " scheme"));
    console.paragraph(machine_line(query.machine));
    print_fit(console, answer);
    console.line();
  }
  print_sentences(console, answer);
  console.line();
  print_tiers(console, answer);
  console.line();
  print_ways(console, answer.tiers.front(), answer.context_tokens);
  print_decode(console, answer);
  print_maps(console, answer);
  if (!answer.svg_file.empty()) {
    console.line();
    console.line("Wrote the map to " + printable(answer.svg_file) + ".");
  }
  if (console.quiet) {
    return;
  }
  console.line();
  print_running(console, answer);
  console.paragraph(answer.laws);
  for (const TierAnswer& tier : answer.tiers) {
    if (tier.tier.provenance == Provenance::assumed) {
      console.paragraph("The rate of " + tier.tier.name + " is assumed: give --tier " +
                        tier.tier.name + " --bandwidth.");
    }
  }
}

}  // namespace kvfathom::cli
