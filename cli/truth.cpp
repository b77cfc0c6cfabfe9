#include "cli/truth.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <string_view>

#include <nlohmann/json.hpp>

#include "cli/tsv.h"
#include "cli/values.h"
#include "model/engine/engine.h"
#include "model/error.h"
#include "model/io/file.h"

namespace kvfathom::cli {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;
constexpr double kTwoDecimals = 0.01;  // llama.cpp prints MiB with two decimals

void add_ledger_sizes(const TableLine& line, bool on_gpu, TruthRow& row) {
  const double kv = line.size("kv_mib") * kMiB;
  const double state = line.size("state_mib") * kMiB;
  const auto add = [&](const char* component, double bytes, double resolution) {
    row.sizes.push_back({component, bytes, resolution});
  };
  if (on_gpu) {
    add("weights", line.size("gpu_weights"), 1.0);
    add("compute (gpu)", line.size("gpu_compute"), 1.0);
    add("compute (host)", line.size("host_compute"), 1.0);
  } else {
    add("compute (cpu)", line.size("host_compute"), 1.0);
  }
  add("weights (host)", line.size("host_weights"), 1.0);
  // To the byte it plans K, V and state as one sum. What it prints apart, in MiB, leaves out the
  // padding of quantised rows, so only a hybrid's state is compared with that.
  const char* component = state == 0 ? "cache" : kv == 0 ? "state" : "cache + state";
  add(component, line.size("context"), 1.0);
  if (kv > 0 && state > 0) {
    add("state", state, kTwoDecimals * kMiB);
  }
  add("output", line.size("output_mib") * kMiB, kTwoDecimals * kMiB);
}

/// What both tables say of a run.
TruthRow settings_row(const TableLine& line, std::string id) {
  TruthRow row;
  row.id = std::move(id);
  row.model = line.text("model");
  row.weights = line.text("weights");
  row.engine = "llama.cpp";
  row.context_tokens = line.count("total_context", 1);
  EngineSettings& settings = row.settings;
  settings.context_is_total = true;
  settings.sequences = line.count("sequences", 1);
  settings.batch_tokens = line.count("batch", 1);
  settings.ubatch_tokens = line.count("ubatch", 0);
  if (settings.ubatch_tokens == 0) {
    settings.ubatch_tokens = settings.batch_tokens;  // llama.cpp: 0 is "as the batch"
  }
  settings.outputs = line.count("outputs", 0);
  settings.cache_type_k = parse_cache_type(line.place("type_k"), line.text("type_k"));
  settings.cache_type_v = parse_cache_type(line.place("type_v"), line.text("type_v"));
  settings.flash_attention = parse_flash_attention(line.text("flash_attention"));
  settings.kv_unified = parse_on_off(line.place("kv_unified"), line.text("kv_unified"));
  settings.swa_full = parse_on_off(line.place("swa_full"), line.text("swa_full"));
  return row;
}

TruthRow ledger_row(const TableLine& line, std::size_t number) {
  TruthRow row = settings_row(line, "ledger:" + std::to_string(number));
  const bool on_gpu = line.text("place") == "gpu";
  row.settings.n_gpus = on_gpu ? 1 : 0;
  row.planned = line.text("context") != "-";
  if (row.planned) {
    add_ledger_sizes(line, on_gpu, row);
  }
  return row;
}

/// Layers on two GPUs, or on a GPU and the host.
TruthRow devices_row(const TableLine& line, std::size_t number) {
  TruthRow row = settings_row(line, "devices:" + std::to_string(number));
  row.settings.n_gpus = static_cast<int>(line.count("gpus", 1));
  if (line.text("gpu_layers") != "-") {
    row.settings.gpu_layers = line.count("gpu_layers", 0);
  }
  std::vector<std::string> devices{"host"};
  for (int gpu = 0; gpu < row.settings.n_gpus; ++gpu) {
    devices.push_back("gpu" + std::to_string(gpu));
  }
  for (const std::string& device : devices) {
    const auto add = [&](const char* component, const char* column) {
      row.sizes.push_back(
          {std::string(component) + " (" + device + ", split)", line.size(device + column), 1.0});
    };
    add("weights", "_weights");
    add("cache + state", "_context");
    add("compute", "_compute");
  }
  return row;
}

void read_table(const std::string& path,
                TruthRow (*row_of)(const TableLine&, std::size_t),
                std::vector<TruthRow>& rows) {
  for_each_line(path, [&](const TableLine& line, std::size_t number) {
    rows.push_back(row_of(line, number));
  });
}

using Json = nlohmann::json;

/// {"component": size in bytes} with a suffix that names another unit: cache_mib, weights_gib.
LoggedSize logged_size(const std::string& key, double value) {
  if (key == "concurrency") {
    return {key, value, kTwoDecimals};
  }
  if (key == "pool_tokens") {
    return {"pool tokens", value, 1.0};
  }
  constexpr std::array<std::string_view, 3> kUnits{"_bytes", "_mib", "_gib"};
  constexpr std::array<double, 3> kScale{1.0, kMiB, kMiB * 1024.0};
  constexpr std::array<double, 3> kPrinted{1.0, kTwoDecimals, kTwoDecimals};
  for (std::size_t i = 0; i < kUnits.size(); ++i) {
    if (key.ends_with(kUnits[i])) {
      std::string component = key.substr(0, key.size() - kUnits[i].size());
      std::replace(component.begin(), component.end(), '_', ' ');
      for (const std::string_view place : {"gpu", "host", "cpu"}) {
        const std::string tail = " " + std::string(place);
        if (component.ends_with(tail)) {
          component =
              component.substr(0, component.size() - tail.size()) + " (" + std::string(place) + ")";
        }
      }
      return {component, value * kScale[i], kPrinted[i] * kScale[i]};
    }
  }
  throw InputError(key, "no unit in the name", "one of _bytes, _mib, _gib");
}

FlashAttention flash_attention_of(const Json& json) {
  return parse_flash_attention(json.value("flash_attention", "auto"));
}

EngineSettings settings_of_json(const Json& json) {
  EngineSettings settings;
  settings.context_is_total = json.contains("total_context");
  settings.sequences = json.value("sequences", std::int64_t{1});
  const auto maybe = [&](const char* key, std::optional<std::int64_t>& target) {
    if (json.contains(key)) {
      target = json.at(key).get<std::int64_t>();
    }
  };
  maybe("batch", settings.batch_tokens);
  maybe("ubatch", settings.ubatch_tokens);
  maybe("outputs", settings.outputs);
  settings.cache_type_k = parse_cache_type("type_k", json.value("type_k", "f16"));
  settings.cache_type_v = parse_cache_type("type_v", json.value("type_v", "f16"));
  settings.flash_attention = flash_attention_of(json);
  if (json.contains("kv_unified")) {
    settings.kv_unified = json.at("kv_unified").get<bool>();
  }
  if (json.contains("swa_full")) {
    settings.swa_full = json.at("swa_full").get<bool>();
  }
  settings.scheme = scheme_named(json.value("scheme", "native"));
  maybe("max_batched_tokens", settings.max_batched_tokens);
  maybe("max_sequences", settings.max_sequences);
  maybe("block_tokens", settings.block_tokens);
  settings.draft_tokens = json.value("draft_tokens", std::int64_t{0});
  if (json.contains("gpu_memory_utilization")) {
    settings.gpu_memory_utilization = json.at("gpu_memory_utilization").get<double>();
  }
  settings.tensor_parallel = json.value("tensor_parallel", std::int64_t{1});
  settings.pipeline_parallel = json.value("pipeline_parallel", std::int64_t{1});
  settings.data_parallel = json.value("data_parallel", std::int64_t{1});
  settings.expert_parallel = json.value("expert_parallel", std::int64_t{1});
  settings.device_memory_bytes =
      static_cast<std::int64_t>(json.value("device_gib", 0.0) * kMiB * 1024.0);
  settings.device_name = json.value("device", "");
  settings.n_gpus = json.value("place", "gpu") == "cpu" ? 0 : 1;
  return settings;
}

TruthRow json_row(const Json& json) {
  TruthRow row;
  row.id = json.at("id").get<std::string>();
  row.engine = json.at("engine").get<std::string>();
  row.model = json.value("model", "");
  row.weights = json.value("weights", "");
  row.unpredictable = json.value("unpredictable", "");
  if (!row.unpredictable.empty()) {
    return row;
  }
  const Json& settings = json.at("settings");
  row.settings = settings_of_json(settings);
  row.settings.engine_version = json.value("engine_version", "");
  if (row.engine != "llama.cpp" && row.engine != "ideal") {
    row.settings.weights_provenance = Provenance::modelled;  // of a config; no file is at hand
  }
  row.available_bytes = settings.value("available_gib", 0.0) * kMiB * 1024.0;
  row.available_resolution_bytes =
      settings.value("available_resolution_gib", kTwoDecimals) * kMiB * 1024.0;
  row.context_tokens =
      settings.at(row.settings.context_is_total ? "total_context" : "context").get<std::int64_t>();
  for (const auto& [key, value] : json.at("logged").items()) {
    row.sizes.push_back(logged_size(key, value.get<double>()));
  }
  return row;
}

void read_json_lines(const std::string& path, std::vector<TruthRow>& rows) {
  const std::string text = read_text_file(path);
  std::size_t number = 0;
  for (const std::string_view line : split(text, '\n')) {
    ++number;
    if (line.empty()) {
      continue;
    }
    try {
      rows.push_back(json_row(Json::parse(line)));
    } catch (const Json::exception& error) {
      throw InputError(
          path + " line " + std::to_string(number), error.what(), "see data/truth/README.md");
    }
  }
}

}  // namespace

std::vector<TruthRow> read_truth(const std::string& folder) {
  std::vector<TruthRow> rows;
  if (!is_directory(folder)) {
    throw InputError("--truth", "'" + folder + "' is no folder", "one with truth rows");
  }
  read_table(folder + "/llamacpp_ledger.tsv", ledger_row, rows);
  if (const std::string split = folder + "/llamacpp_devices.tsv"; is_regular_file(split)) {
    read_table(split, devices_row, rows);
  }
  for (const char* file : {"/memory_logs.jsonl", "/serving_logs.jsonl", "/vectors.jsonl"}) {
    read_json_lines(folder + file, rows);
  }
  return rows;
}

}  // namespace kvfathom::cli
