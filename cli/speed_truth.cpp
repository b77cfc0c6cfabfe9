#include "cli/speed_truth.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "cli/tsv.h"
#include "cli/values.h"
#include "model/error.h"

namespace kvfathom::cli {
namespace {

constexpr std::array<std::string_view, 5> kMetrics{"prefill", "decode", "static", "ttft", "tpot"};

SpeedMetric metric_of(const TableLine& line) {
  const std::string text = line.text("metric");
  const auto* const known = std::ranges::find(kMetrics, std::string_view(text));
  if (known == kMetrics.end()) {
    throw InputError(line.place("metric"), "'" + text + "'", "prefill, decode, static, ttft, tpot");
  }
  return static_cast<SpeedMetric>(known - kMetrics.begin());
}

/// "-": the model has none, or its engine keeps them as it does by default.
DType state_type_of(const TableLine& line) {
  const std::string text = line.text("state");
  return text == "-" ? DType::f32 : parse_cache_type(line.place("state"), text);
}

SpeedRow row_of(const TableLine& line) {
  SpeedRow row{.id = line.text("id"),
               .engine = line.text("engine"),
               .backend = line.text("backend"),
               .gpu = line.text("gpu"),
               .n_gpus = line.count("n_gpus", 1),
               .tensor_parallel = line.count("tp", 1),
               .expert_parallel = line.count("ep", 1),
               .model = line.text("model"),
               .weights = line.text("weights"),
               .cache_type = parse_cache_type(line.place("cache"), line.text("cache")),
               .state_type = state_type_of(line),
               .batch = line.count("batch", 1),
               .prompt_tokens = line.count("prompt", 0),
               .new_tokens = line.count("new", 0),
               .depth_tokens = line.count("depth", 0),
               .chunk_tokens = line.count("ubatch", 1),
               .flash_attention = line.text("fa") != "off",
               .metric = metric_of(line),
               .value = line.size("value")};
  const bool needs_prompt = row.metric != SpeedMetric::decode;
  const bool needs_new = !row.is_prefill();
  if ((needs_prompt && row.prompt_tokens == 0) || (needs_new && row.new_tokens == 0)) {
    throw InputError(line.place("prompt"), "no tokens for this metric", "see README.md");
  }
  if (row.value <= 0.0) {
    throw InputError(line.place("value"), "0", "a positive number");
  }
  return row;
}

}  // namespace

std::vector<SpeedRow> read_speed_truth(const std::string& folder) {
  std::vector<SpeedRow> rows;
  for_each_line(folder + "/speed.tsv", [&](const TableLine& line, std::size_t /*number*/) {
    rows.push_back(row_of(line));
  });
  return rows;
}

std::vector<RefusedSpeeds> read_refused_speeds(const std::string& folder) {
  std::vector<RefusedSpeeds> all;
  for_each_line(folder + "/speed_refused.tsv", [&](const TableLine& line, std::size_t /*number*/) {
    all.push_back(
        {.n = line.count("n", 1), .first = line.text("first"), .reason = line.text("reason")});
  });
  return all;
}

}  // namespace kvfathom::cli
