#include "cli/validate_speed.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>

#include "cli/data_dir.h"
#include "cli/format.h"
#include "cli/json_writer.h"
#include "cli/speed_laws.h"
#include "cli/table.h"
#include "model/io/engine_law_json.h"
#include "model/quantile.h"

namespace kvfathom::cli {
namespace {

std::string percent(double share, bool is_signed = false) {
  constexpr double kHundred = 100.0;
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), is_signed ? "%+.1f %%" : "%.1f %%", share * kHundred);
  return buffer.data();
}

std::string phase_of(const SpeedRow& row) {
  return row.is_prefill() ? "prefill" : "decode";
}

SpeedSummary summary_of(const std::string& by,
                        const std::string& group,
                        const std::vector<const SpeedOutcome*>& members) {
  SpeedSummary summary{.by = by, .name = group};
  std::vector<double> errors;
  std::vector<double> sizes;
  std::int64_t covered = 0;
  std::int64_t under = 0;
  for (const SpeedOutcome* one : members) {
    if (!one->refused.empty()) {
      ++summary.refused;
      continue;
    }
    errors.push_back(one->error());
    sizes.push_back(std::fabs(one->error()));
    covered += one->covered() ? 1 : 0;
    under += one->error() < 0.0 ? 1 : 0;
    summary.worst_under = std::max(summary.worst_under, -one->error());
  }
  summary.n = static_cast<std::int64_t>(errors.size());
  if (summary.n > 0) {
    summary.median_abs_error = quantile(sizes, 0.5);
    summary.p90_abs_error = quantile(sizes, 0.9);
    summary.bias = quantile(errors, 0.5);
    summary.share_under = static_cast<double>(under) / static_cast<double>(summary.n);
    summary.share_covered = static_cast<double>(covered) / static_cast<double>(summary.n);
  }
  return summary;
}

template <class NameOf>
void add_summaries(const char* by,
                   NameOf name_of,
                   const std::vector<SpeedOutcome>& outcomes,
                   std::vector<SpeedSummary>& all) {
  std::map<std::string, std::vector<const SpeedOutcome*>> groups;
  for (const SpeedOutcome& outcome : outcomes) {
    groups[name_of(outcome)].push_back(&outcome);
  }
  for (const auto& [group, members] : groups) {
    all.push_back(summary_of(by, group, members));
  }
}

Json json_of(const std::vector<SpeedOutcome>& outcomes,
             const std::vector<SpeedSummary>& summaries,
             const std::vector<EngineSpeed>& speeds,
             const std::vector<RefusedSpeeds>& left_out) {
  Json json = document("validate");
  json["summary"] = Json::array();
  for (const SpeedSummary& s : summaries) {
    json["summary"].push_back({{"by", s.by},
                               {"name", s.name},
                               {"n", s.n},
                               {"refused", s.refused},
                               {"exact", 0},
                               {"median_abs_error", s.median_abs_error},
                               {"p90_abs_error", s.p90_abs_error},
                               {"bias", s.bias},
                               {"share_under", s.share_under},
                               {"worst_under", s.worst_under},
                               {"share_covered", s.share_covered}});
  }
  json["held_out"] = Json::array();
  for (const EngineSpeed& speed : speeds) {
    for (const EngineError& e : speed.errors) {
      json["held_out"].push_back({{"engine", speed.engine},
                                  {"phase", e.phase == Phase::prefill ? "prefill" : "decode"},
                                  {"device_class", e.device_class},
                                  {"device_known", e.device_known},
                                  {"n", e.n},
                                  {"median_abs_error", e.median_abs_error},
                                  {"p90_abs_error", e.p90_abs_error},
                                  {"bias", e.bias}});
    }
  }
  json["rows"] = Json::array();
  for (const SpeedOutcome& o : outcomes) {
    const bool refused = !o.refused.empty();
    const auto number = [&](double value) { return refused ? Json(nullptr) : Json(value); };
    json["rows"].push_back({{"id", o.row.id},
                            {"engine", o.row.engine},
                            {"model", o.row.model},
                            {"gpu", o.row.gpu},
                            {"component", phase_of(o.row)},
                            {"predicted", number(o.predicted_s.value)},
                            {"actual", number(o.measured_s)},
                            {"error", refused ? Json(nullptr) : Json(o.error())},
                            {"exact", refused ? Json(nullptr) : Json(false)},
                            {"covered", refused ? Json(nullptr) : Json(o.covered())},
                            {"refused", text_or_null(o.refused)}});
  }
  json["left_out"] = Json::array();
  for (const RefusedSpeeds& one : left_out) {
    json["left_out"].push_back({{"n", one.n}, {"first", one.first}, {"reason", one.reason}});
  }
  return json;
}

void print_summaries(Console& console,
                     const std::vector<SpeedSummary>& summaries,
                     const std::string& by) {
  Table table{.columns = {{by},
                          {"n", Align::right},
                          {"refused", Align::right},
                          {"median", Align::right},
                          {"P90", Align::right},
                          {"bias", Align::right},
                          {"in interval", Align::right}},
              .rows = {}};
  for (const SpeedSummary& s : summaries) {
    if (s.by == by) {
      const auto share = [&](double value) { return s.n == 0 ? "-" : percent(value); };
      table.rows.push_back({{s.name},
                            {thousands(s.n)},
                            {thousands(s.refused)},
                            {share(s.median_abs_error)},
                            {share(s.p90_abs_error)},
                            {s.n == 0 ? "-" : percent(s.bias, true)},
                            {share(s.share_covered)}});
    }
  }
  console.line();
  print(console, table);
}

/// What the engines' files say of rows that their fit did not see.
void print_held_out(Console& console, const std::vector<EngineSpeed>& speeds) {
  Table table{.columns = {{"held out"},
                          {"n", Align::right},
                          {"median", Align::right},
                          {"P90", Align::right},
                          {"bias", Align::right}},
              .rows = {}};
  for (const EngineSpeed& speed : speeds) {
    for (const EngineError& e : speed.errors) {
      if (e.device_class == "all") {
        table.rows.push_back(
            {{speed.engine + (e.phase == Phase::prefill ? ", prefill" : ", decode") +
              (e.device_known ? "" : ", class of GPU too")},
             {thousands(e.n)},
             {percent(e.median_abs_error)},
             {percent(e.p90_abs_error)},
             {percent(e.bias, true)}});
      }
    }
  }
  console.line();
  print(console, table);
}

void print_refusals(Console& console,
                    const std::vector<SpeedOutcome>& outcomes,
                    const std::vector<RefusedSpeeds>& left_out) {
  std::map<std::string, std::int64_t> reasons;
  for (const RefusedSpeeds& one : left_out) {
    reasons[one.reason] += one.n;
  }
  for (const SpeedOutcome& one : outcomes) {
    if (!one.refused.empty()) {
      ++reasons[one.refused];
    }
  }
  console.line();
  console.line("Not compared, and why:");
  for (const auto& [reason, n] : reasons) {
    console.paragraph("- " + printable(reason) + " (" + thousands(n) + ")", 2);
  }
}

/// Engines without a row in `speeds` are refused.
template <class Price>
std::vector<SpeedOutcome> outcomes_of(const std::vector<SpeedRow>& rows,
                                      const std::vector<EngineSpeed>& speeds,
                                      Price price) {
  const Replays replays(rows, [&](const std::string& engine) -> const EngineSpeed* {
    const auto known = std::ranges::find(speeds, engine, &EngineSpeed::engine);
    return known == speeds.end() ? nullptr : &*known;
  });
  std::vector<SpeedOutcome> outcomes;
  for (const Replay& replay : replays.all()) {
    SpeedOutcome outcome{.row = *replay.row,
                         .device_class = replay.device_class,
                         .refused = replay.refused,
                         .predicted_s = {},
                         .measured_s = replay.measured_s};
    if (outcome.refused.empty()) {
      outcome.predicted_s = price(replay);
    }
    outcomes.push_back(std::move(outcome));
  }
  return outcomes;
}

}  // namespace

std::vector<EngineSpeed> read_engine_speeds() {
  std::vector<std::string> paths;
  const std::filesystem::path folder = data_directory() / "engines" / "speed";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    paths.push_back(entry.path().string());
  }
  std::ranges::sort(paths);
  std::vector<EngineSpeed> speeds;
  speeds.reserve(paths.size());
  for (const std::string& path : paths) {
    speeds.push_back(read_engine_speed(path));
  }
  return speeds;
}

std::vector<SpeedOutcome> replay_speeds(const std::vector<SpeedRow>& rows,
                                        const std::vector<EngineSpeed>& speeds) {
  return outcomes_of(
      rows, speeds, [](const Replay& replay) { return predicted_time(replay, *replay.laws); });
}

std::vector<SpeedOutcome> predict_speeds(const std::vector<SpeedRow>& rows,
                                         const std::vector<EngineSpeed>& speeds) {
  SpeedData data;
  return outcomes_of(rows, speeds, [&](const Replay& replay) {
    const EngineInfo& engine = engine_named(replay.row->engine);
    return predicted_time(replay, *data.laws(engine, *replay.device, std::nullopt, replay.run));
  });
}

std::vector<SpeedSummary> summarise(const std::vector<SpeedOutcome>& outcomes) {
  std::vector<SpeedSummary> all;
  add_summaries(
      "phase", [](const SpeedOutcome& o) { return phase_of(o.row); }, outcomes, all);
  add_summaries(
      "engine",
      [](const SpeedOutcome& o) { return o.row.engine + ", " + phase_of(o.row); },
      outcomes,
      all);
  add_summaries(
      "device class",
      [](const SpeedOutcome& o) {
        return (o.device_class.empty() ? o.row.gpu : o.device_class) + ", " + phase_of(o.row);
      },
      outcomes,
      all);
  return all;
}

int validate_speed(const std::string& folder, Console& console) {
  const std::vector<SpeedRow> rows = read_speed_truth(folder);
  const std::vector<RefusedSpeeds> left_out = read_refused_speeds(folder);
  const std::vector<EngineSpeed> speeds = read_engine_speeds();
  const std::vector<SpeedOutcome> outcomes = predict_speeds(rows, speeds);
  const std::vector<SpeedSummary> summaries = summarise(outcomes);
  if (console.json) {
    print_json(console, json_of(outcomes, summaries, speeds, left_out));
    return 0;
  }
  console.line(thousands(static_cast<std::int64_t>(rows.size())) + " measured speeds");
  for (const char* by : {"phase", "engine", "device class"}) {
    print_summaries(console, summaries, by);
  }
  print_held_out(console, speeds);
  if (!console.quiet) {
    print_refusals(console, outcomes, left_out);
    console.line();
    console.paragraph(
        "Errors are of the time, as shares of the measured one. The upper tables are what `speed` "
        "predicts: by published kernels for serving engines on GPUs that have some, else by shares "
        "of the data sheet, fitted to these very rows. 'held out' is what that fit says of GPUs "
        "with models, or of whole classes of GPU, that it was not shown.");
  }
  return 0;
}

}  // namespace kvfathom::cli
