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

/// Lengths at which fetching is the quicker: "1-784, 11,265+", "all" or "none".
std::string fetch_wins_at(const std::vector<Reign>& reigns) {
  if (reigns.size() == 1) {
    return reigns.front().fetch ? "all" : "none";
  }
  std::string text;
  for (std::size_t i = 0; i < reigns.size(); ++i) {
    if (reigns[i].fetch) {
      text += (text.empty() ? "" : ", ") + thousands(reigns[i].from_tokens);
      text += i + 1 == reigns.size() ? "+" : "-" + thousands(reigns[i + 1].from_tokens - 1);
    }
  }
  return text;
}

void print_tiers(Console& console, const CrossoverAnswer& answer) {
  Table table{.columns = {{"from"},
                          {"rate", Align::right},
                          {"fetch", Align::right},
                          {"recompute", Align::right},
                          {"even at", Align::right},
                          {"fetch wins at", Align::left, true}},
              .rows = {}};
  for (const TierAnswer& tier : answer.tiers) {
    const double even = tier.crossover_bandwidth_bytes_per_s;
    table.rows.push_back({{tier.tier.name},
                          {rate_text(tier.tier.link.bandwidth.value())},
                          {duration(tier.arms[0].time_s.value)},
                          {duration(tier.arms[1].time_s.value)},
                          {even > 0.0 ? rate_text(even) : "-"},
                          {fetch_wins_at(tier.reigns)}});
  }
  print(console, table);
  for (const TierAnswer& tier : answer.tiers) {
    if (!tier.reigns_loaded.empty()) {
      console.paragraph(
          "Under the load, from " + tier.tier.name +
              ", lengths at which fetching wins: " + fetch_wins_at(tier.reigns_loaded) + ".",
          2);
    }
  }
}

/// Of a link that a person described, the time is no estimate.
std::string interval_text(const Estimate& time_s) {
  return time_s.low < time_s.high ? duration(time_s.low) + " - " + duration(time_s.high) : "given";
}

/// "host, 52.3 GB/s"
std::string link_text(const TierAnswer& tier) {
  return tier.tier.name + ", " + rate_text(tier.tier.link.bandwidth.value());
}

void print_arms(Console& console, const TierAnswer& tier, std::int64_t tokens) {
  console.paragraph("Ways to bring " + counted(tokens, "token") + " back (" + link_text(tier) +
                    "):");
  Table table{.columns = {{"way"},
                          {"moves GiB", Align::right},
                          {"time", Align::right},
                          {"90 %", Align::right},
                          {"", Align::left, true}},
              .rows = {}};
  const auto quickest = std::ranges::min_element(
      tier.arms, {}, [](const Arm& arm) { return arm.exact ? arm.time_s.value : 1e300; });
  for (const Arm& arm : tier.arms) {
    const Style style = &arm == &*quickest ? Style::good : Style::plain;
    const std::string note = arm.exact ? arm.how : "lossy";
    table.rows.push_back({{arm.name, style},
                          {gib_number(std::llround(arm.moved_bytes))},
                          {duration(arm.time_s.value), style},
                          {interval_text(arm.time_s)},
                          {note}});
  }
  print(console, table);
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
    for (const auto& from : arm.pays_from_tokens) {
      table.rows.back().push_back({pays_text(from)});
    }
  }
  print(console, table);
}

}  // namespace

void print_crossover(Console& console, const Query& query, const CrossoverAnswer& answer) {
  if (!console.quiet) {
    console.line(console.styled(model_line(query.model), Style::bold));
    console.paragraph(engine_line(query));
    console.paragraph(machine_line(query.machine));
    console.line();
  }
  for (const TierAnswer& tier : answer.tiers) {
    console.paragraph(tier.sentence);
  }
  console.line();
  print_tiers(console, answer);
  console.line();
  print_arms(console, answer.tiers.front(), answer.context_tokens);
  print_decode(console, answer);
  if (answer.map) {
    console.line();
    print_map(console, *answer.map);
  }
  if (answer.batch_map) {
    console.line();
    console.paragraph("Several prefixes at once (" + link_text(answer.tiers.front()) + "):");
    print_map(console, *answer.batch_map);
  }
  if (console.quiet) {
    return;
  }
  console.line();
  if (answer.running) {
    console.paragraph("Recomputing holds up the " + counted(*answer.running, "sequence") +
                      (*answer.running == 1 ? " that decodes" : " that decode") +
                      " meanwhile: a token each takes " + duration(answer.running_with_chunk_s) +
                      " instead of " + duration(answer.running_step_s) + ". Fetching does not.");
  }
  console.paragraph(answer.laws);
  for (const TierAnswer& tier : answer.tiers) {
    if (tier.tier.provenance == Provenance::assumed) {
      console.paragraph("The rate of " + tier.tier.name + " is assumed: give --tier " +
                        tier.tier.name + " --bandwidth.");
    }
  }
}

}  // namespace kvfathom::cli
