#include "model/io/engine_law_json.h"

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "model/io/file.h"
#include "model/io/json_reader.h"

namespace kvfathom {
namespace {

constexpr const char* kSchema = "kvfathom.engine-speed/1";

EngineParameter parameter_of(const Reader& reader) {
  constexpr std::array<std::string_view, 4> kFields{"name", "value", "low", "high"};
  reader.refuse_unknown(kFields);
  EngineParameter parameter{.name = reader.text("name"),
                            .value = reader.positive("value"),
                            .low = reader.number("low"),
                            .high = reader.number("high")};
  if (parameter.low > parameter.value || parameter.high < parameter.value) {
    throw reader.error("low", reader.shown("low"), "an interval that holds the value");
  }
  return parameter;
}

EngineError error_of(const Reader& reader) {
  constexpr std::array<std::string_view, 8> kFields{"phase",
                                                    "device_class",
                                                    "device_known",
                                                    "n",
                                                    "median_abs_error",
                                                    "p90_abs_error",
                                                    "bias",
                                                    "log_error"};
  reader.refuse_unknown(kFields);
  const std::string phase = reader.text("phase");
  if (phase != "prefill" && phase != "decode") {
    throw reader.error("phase", phase, "prefill or decode");
  }
  return {.phase = phase == "prefill" ? Phase::prefill : Phase::decode,
          .device_class = reader.text("device_class"),
          .device_known = reader.flag_or("device_known", true),
          .n = reader.count("n"),
          .median_abs_error = reader.number("median_abs_error"),
          .p90_abs_error = reader.number("p90_abs_error"),
          .bias = reader.number("bias"),
          .log_error = reader.number("log_error")};
}

double rounded(double value) {  // four digits: no fit knows more
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.4g", value);
  return std::stod(buffer.data());
}

}  // namespace

EngineSpeed parse_engine_speed(const std::string& text, const std::string& file) {
  const nlohmann::json json = parse_json(text, file);
  const Reader reader(json, file);
  constexpr std::array<std::string_view, 7> kFields{
      "schema", "engine", "source", "n_rows", "provenance", "parameters", "errors"};
  reader.refuse_unknown(kFields);
  if (reader.text("schema") != kSchema) {
    throw reader.error("schema", reader.text("schema"), kSchema);
  }
  EngineSpeed speed{.engine = reader.text("engine"),
                    .source = reader.text("source"),
                    .n_rows = reader.count("n_rows", {.min = 0}),
                    .provenance = reader.provenance("provenance"),
                    .parameters = {},
                    .errors = {}};
  for (const Reader& row : reader.objects("parameters")) {
    speed.parameters.push_back(parameter_of(row));
  }
  for (const Reader& row : reader.objects("errors")) {
    speed.errors.push_back(error_of(row));
  }
  return speed;
}

EngineSpeed read_engine_speed(const std::string& path) {
  return parse_engine_speed(read_text_file(path), path);
}

std::string write_engine_speed(const EngineSpeed& speed) {
  nlohmann::ordered_json json;
  json["schema"] = kSchema;
  json["engine"] = speed.engine;
  json["source"] = speed.source;
  json["n_rows"] = speed.n_rows;
  json["provenance"] = name(speed.provenance);
  json["parameters"] = nlohmann::ordered_json::array();
  for (const EngineParameter& p : speed.parameters) {
    const double value = rounded(p.value);
    json["parameters"].push_back({{"name", p.name},
                                  {"value", value},
                                  {"low", std::min(value, rounded(p.low))},
                                  {"high", std::max(value, rounded(p.high))}});
  }
  json["errors"] = nlohmann::ordered_json::array();
  for (const EngineError& e : speed.errors) {
    json["errors"].push_back({{"phase", e.phase == Phase::prefill ? "prefill" : "decode"},
                              {"device_class", e.device_class},
                              {"device_known", e.device_known},
                              {"n", e.n},
                              {"median_abs_error", rounded(e.median_abs_error)},
                              {"p90_abs_error", rounded(e.p90_abs_error)},
                              {"bias", rounded(e.bias)},
                              {"log_error", rounded(e.log_error)}});
  }
  return json.dump(1) + "\n";
}

}  // namespace kvfathom
