// What `kvfathom crossover --measure` shows.
#include <algorithm>
#include <cmath>
#include <string>

#include "cli/crossover_measure.h"
#include "cli/format.h"
#include "cli/headline.h"
#include "cli/table.h"
#include "model/text/size.h"

namespace kvfathom::cli {
namespace {

std::string tokens_text(double tokens) {
  return thousands(std::llround(tokens));
}

/// "+12 %": what was predicted against what was measured.
std::string off_text(double predicted, double measured) {
  const auto percent = std::lround(100.0 * (predicted / measured - 1.0));
  return (percent > 0 ? "+" : "") + std::to_string(percent) + " %";
}

std::string rate_text(double bytes_per_s) {
  return bytes_per_s < 1e9 ? rounded(bytes_per_s / 1e6) + " MB/s"
                           : rounded(bytes_per_s / 1e9) + " GB/s";
}

std::string link_text(const MeasuredAnswer& answer) {
  const std::string rate = rate_text(answer.tier.link.bandwidth.value());
  if (!answer.held) {
    return "Fetched by plain copies in memory, which were calibrated at " + rate + ".";
  }
  const Bytes piece = answer.tier.link.piece;
  return "Fetched by copies in memory held to " + rate + ", " +
         duration(answer.tier.link.call.value()) + " before " +
         (piece < kWholePrefix ? "each piece of " + human_size(std::llround(piece.value())) + "."
                               : "the first byte.");
}

std::string layers_text(const Query& query, const MeasuredAnswer& answer) {
  const auto [fewest, most] =
      std::ranges::minmax_element(answer.points, {}, &MeasuredPoint::n_layers);
  std::string ran = std::to_string(fewest->n_layers);
  ran += most->n_layers > fewest->n_layers ? " to " + std::to_string(most->n_layers) : "";
  return "Recomputing ran " + ran + " of " + std::to_string(query.model.spec.layers.size()) +
         " equal layers with random weights in bf16, and the output head; times are scaled to all "
         "layers. Threads: " +
         std::to_string(answer.n_threads) +
         "; the machine's load before: " + rounded(answer.load_average) + ".";
}

std::string calibration_text(const Query& query) {
  const Session& session = *query.calibration->session;
  std::string text =
      "Predicted by the calibration of " + session.utc + " (" + query.calibration->source + ")";
  for (const std::string& flag : session.flags) {
    text += "; " + flag;
  }
  return text + ".";
}

const char* fetched_name(const MeasuredCrossover& crossover) {
  return crossover.id == "native" ? "K and V" : "X";
}

/// Whether a predicted change lies where nothing was measured: shorter or longer than all lengths.
bool is_outside(const MeasuredAnswer& answer, const MeasuredCrossover& crossover) {
  return !crossover.measured_tokens &&
         (crossover.predicted_tokens < answer.points.front().n_tokens ||
          crossover.predicted_tokens > answer.points.back().n_tokens);
}

/// Every such change in one sentence; empty where there is none.
std::string outside_text(const MeasuredAnswer& answer) {
  std::string text;
  std::string last;
  for (const MeasuredCrossover& crossover : answer.crossovers) {
    if (is_outside(answer, crossover)) {
      text += text.empty()           ? "Also predicted, where no length was measured: "
              : crossover.id == last ? ", "
                                     : "; ";
      text += crossover.id == last ? "" : std::string("fetching ") + fetched_name(crossover) + " ";
      text += (crossover.fetch_wins ? "wins from " : "loses from ") +
              thousands(crossover.predicted_tokens);
      last = crossover.id;
    }
  }
  return text.empty() ? text : text + " tokens on.";
}

std::string sentence_of(const MeasuredCrossover& crossover) {
  std::string text = std::string("Fetching ") + fetched_name(crossover) +
                     (crossover.fetch_wins ? " wins from " : " loses from ") +
                     thousands(crossover.predicted_tokens) + " tokens on by prediction, ";
  if (!crossover.measured_tokens) {
    return text + "between no two of the lengths measured.";
  }
  text += "from " + tokens_text(*crossover.measured_tokens) + " on as measured";
  if (crossover.low_tokens) {
    text += " (" + tokens_text(*crossover.low_tokens) + " to " +
            tokens_text(*crossover.high_tokens) + ")";
  }
  return text + ": the prediction is off by " +
         off_text(static_cast<double>(crossover.predicted_tokens), *crossover.measured_tokens) +
         ".";
}

/// "fetching wins at every length", by one of the two times of each arm.
template <class TimeOfArm>
std::string winner_text(const MeasuredAnswer& answer, const TimeOfArm& time_s) {
  const auto n = std::ranges::count_if(answer.points, [&](const MeasuredPoint& point) {
    return time_s(point.fetch) <= time_s(point.recompute);
  });
  return n == std::ssize(answer.points) ? "fetching K and V wins at every length"
         : n == 0                       ? "recomputing wins over K and V at every length"
                                        : "the winner changes";
}

/// Where no change is predicted.
std::string unchanged_text(const MeasuredAnswer& answer) {
  return "By prediction " +
         winner_text(answer, [](const MeasuredArm& arm) { return arm.predicted.value; }) +
         "; as measured " +
         winner_text(answer, [](const MeasuredArm& arm) { return arm.measured.value; }) + ".";
}

void add_arm(std::vector<Cell>& row, const MeasuredArm& arm) {
  row.push_back({duration(arm.predicted.value)});
  row.push_back({duration(arm.measured.value)});
  row.push_back({off_text(arm.predicted.value, arm.measured.value)});
}

Json measured_arm_json(const MeasuredArm& arm) {
  return {
      {"predicted_s", estimate_json(arm.predicted)},
      {"measured_s",
       {{"value", arm.measured.value}, {"low", arm.measured.low}, {"high", arm.measured.high}}}};
}

Json number_or_null(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

}  // namespace

void print_measured(Console& console, const Query& query, const MeasuredAnswer& answer) {
  if (!console.quiet) {
    console.line(console.styled(model_line(query.model), Style::bold));
    console.paragraph(machine_line(query.machine));
    console.line();
  }
  const bool changes = std::ranges::any_of(
      answer.crossovers, [](const MeasuredCrossover& at) { return at.id == "native"; });
  if (!changes) {
    console.paragraph(unchanged_text(answer));
  }
  for (const MeasuredCrossover& crossover : answer.crossovers) {
    if (!is_outside(answer, crossover)) {
      console.paragraph(sentence_of(crossover));
    }
  }
  if (const std::string outside = outside_text(answer); !outside.empty()) {
    console.paragraph(outside);
  }
  console.line();
  console.paragraph("Seconds predicted and measured, and how far off the prediction is:");
  Table table{.columns = {{"tokens", Align::right},
                          {"fetch", Align::right},
                          {"took", Align::right},
                          {"off", Align::right},
                          {"recompute", Align::right},
                          {"took", Align::right},
                          {"off", Align::right},
                          {"fetch X", Align::right},
                          {"took", Align::right},
                          {"off", Align::right}},
              .rows = {}};
  for (const MeasuredPoint& point : answer.points) {
    table.rows.push_back({{thousands(point.n_tokens)}});
    for (const MeasuredArm* arm : {&point.fetch, &point.recompute, &point.fetch_x}) {
      add_arm(table.rows.back(), *arm);
    }
  }
  print(console, table);
  if (!answer.too_long_tokens.empty()) {
    console.paragraph("Left out, as one layer takes more than 2 s: " +
                      thousands(answer.too_long_tokens.front()) + " tokens and more.");
  }
  if (console.quiet) {
    return;
  }
  console.line();
  console.paragraph(link_text(answer));
  console.paragraph(layers_text(query, answer));
  console.paragraph(
      "X and its projection to K and V were timed apart and are overlapped, layer by layer, as in "
      "the prediction.");
  console.paragraph(calibration_text(query));
}

Json measured_json(const Query& query, const MeasuredAnswer& answer) {
  Json json = document("crossover-measured");
  json["model"] = model_json(query.model.spec);
  json["cpu"] = query.machine.name;
  json["n_threads"] = answer.n_threads;
  json["load_average"] = answer.load_average;
  json["calibration"] = {{"device", query.calibration->device_name},
                         {"utc", query.calibration->session->utc},
                         {"flags", query.calibration->session->flags}};
  json["link"] = {{"tier", answer.tier.name},
                  {"bandwidth_bytes_per_s", answer.tier.link.bandwidth.value()},
                  {"held", answer.held}};
  json["points"] = Json::array();
  for (const MeasuredPoint& point : answer.points) {
    json["points"].push_back({{"context_tokens", point.n_tokens},
                              {"n_layers_run", point.n_layers},
                              {"fetch", measured_arm_json(point.fetch)},
                              {"recompute", measured_arm_json(point.recompute)},
                              {"fetch_x", measured_arm_json(point.fetch_x)}});
  }
  json["crossovers"] = Json::array();
  for (const MeasuredCrossover& crossover : answer.crossovers) {
    json["crossovers"].push_back({{"scheme", crossover.id},
                                  {"winner", crossover.fetch_wins ? "fetch" : "recompute"},
                                  {"predicted_tokens", crossover.predicted_tokens},
                                  {"measured_tokens", number_or_null(crossover.measured_tokens)},
                                  {"measured_tokens_low", number_or_null(crossover.low_tokens)},
                                  {"measured_tokens_high", number_or_null(crossover.high_tokens)}});
  }
  return json;
}

}  // namespace kvfathom::cli
