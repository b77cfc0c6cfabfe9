// kvfathom validate: the error table of every prediction against logged truth.
#include "cli/validate.h"

#include <array>
#include <cstdio>
#include <map>

#include "cli/commands.h"
#include "cli/data_dir.h"
#include "cli/format.h"
#include "cli/json_writer.h"
#include "cli/table.h"
#include "cli/validate_speed.h"

namespace kvfathom::cli {
namespace {

std::string percent(double share) {
  constexpr double kHundred = 100.0;
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.2f %%", share * kHundred);
  return buffer.data();
}

Json json_of(const std::vector<Outcome>& outcomes, const std::vector<Summary>& summaries) {
  Json json = document("validate");
  json["summary"] = Json::array();
  for (const Summary& summary : summaries) {
    json["summary"].push_back({{"by", summary.by},
                               {"name", summary.name},
                               {"n", summary.n},
                               {"refused", summary.refused},
                               {"exact", summary.exact},
                               {"median_abs_error", summary.median_abs_error},
                               {"p90_abs_error", summary.p90_abs_error},
                               {"share_under", summary.share_under},
                               {"worst_under", summary.worst_under},
                               {"share_covered", summary.share_covered}});
  }
  json["rows"] = Json::array();
  for (const Outcome& outcome : outcomes) {
    const bool refused = !outcome.refused.empty();
    const auto number = [&](double value) { return refused ? Json(nullptr) : Json(value); };
    json["rows"].push_back({{"id", outcome.id},
                            {"engine", outcome.engine},
                            {"model", outcome.model},
                            {"component", text_or_null(outcome.component)},
                            {"predicted", number(outcome.predicted_bytes)},
                            {"actual", number(outcome.actual_bytes)},
                            {"error", number(outcome.error())},
                            {"exact", refused ? Json(nullptr) : Json(outcome.exact)},
                            {"covered", refused ? Json(nullptr) : Json(outcome.covered)},
                            {"refused", text_or_null(outcome.refused)}});
  }
  return json;
}

/// One table of the summaries that `wanted` accepts.
template <class Wanted>
void print_summaries(Console& console,
                     const std::vector<Summary>& summaries,
                     const char* title,
                     Wanted wanted) {
  // What a narrow terminal does without, the last first.
  constexpr int kP90 = 1;
  constexpr int kRefused = 2;
  constexpr int kUnder = 3;
  Table table{.columns = {{title, Align::left, true},
                          {"n", Align::right},
                          {"refused", Align::right, false, kRefused},
                          {"exact", Align::right},
                          {"median", Align::right},
                          {"P90", Align::right, false, kP90},
                          {"under", Align::right, false, kUnder},
                          {"worst", Align::right},
                          {"covered", Align::right}},
              .rows = {}};
  for (const Summary& summary : summaries) {
    if (!wanted(summary)) {
      continue;
    }
    const Style style = summary.exact == summary.n ? Style::good : Style::plain;
    const auto share = [&](double value) { return summary.n == 0 ? "-" : percent(value); };
    table.rows.push_back({{summary.name, style},
                          {thousands(summary.n)},
                          {thousands(summary.refused)},
                          {thousands(summary.exact)},
                          {share(summary.median_abs_error)},
                          {share(summary.p90_abs_error)},
                          {share(summary.share_under)},
                          {share(summary.worst_under)},
                          {share(summary.share_covered)}});
  }
  if (!table.rows.empty()) {
    console.line();
    print(console, table);
  }
}

/// Each reason once, with how many rows it took.
void print_refusals(Console& console, const std::vector<Outcome>& outcomes) {
  std::map<std::string, std::vector<std::string>> reasons;
  for (const Outcome& outcome : outcomes) {
    if (!outcome.refused.empty()) {
      reasons[outcome.refused].push_back(outcome.id);
    }
  }
  if (reasons.empty()) {
    return;
  }
  constexpr std::size_t kNamed = 4;
  console.line();
  console.line("Refused, and why:");
  for (const auto& [reason, ids] : reasons) {
    std::string text = reason + " (" + thousands(static_cast<std::int64_t>(ids.size())) +
                       (ids.size() == 1 ? " row: " : " rows: ");
    for (std::size_t i = 0; i < ids.size() && i < kNamed; ++i) {
      text += (i == 0 ? "" : ", ") + ids[i];
    }
    console.paragraph("- " + printable(text) + (ids.size() > kNamed ? ", ..)" : ")"), 2);
  }
}

}  // namespace

int validate(const Options& options, Console& console) {
  const std::string folder = options.truth.value_or((data_directory() / "truth").string());
  if (options.speed_truth) {
    return validate_speed(folder, console);
  }
  const std::vector<TruthRow> rows = read_truth(folder);
  const std::vector<Outcome> outcomes = predict(rows, folder);
  const std::vector<Summary> summaries = summarise(outcomes);
  if (console.json) {
    print_json(console, json_of(outcomes, summaries));
    return 0;
  }
  console.line(thousands(static_cast<std::int64_t>(rows.size())) + " rows of logged truth");
  for (const char* by : {"component", "engine", "model"}) {
    print_summaries(console, summaries, by, [&](const Summary& s) { return s.by == by; });
  }
  print_summaries(console, summaries, "compute by model", [](const Summary& s) {
    return s.by == "component of model" && s.name.starts_with("compute") && s.n > 0;
  });
  if (!console.quiet) {
    print_refusals(console, outcomes);
    console.line();
    console.paragraph(
        "Errors are shares of the logged size; 'exact' is equal after the log's own rounding; "
        "'under' is the share of predictions below the log, 'worst' how far the worst of them, "
        "'covered' the share of logs "
        "within the predicted interval.");
  }
  return 0;
}

}  // namespace kvfathom::cli
