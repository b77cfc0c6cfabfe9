#include "model/io/calibration_json.h"

#include <nlohmann/json.hpp>

namespace kvfathom {
namespace {

using Json = nlohmann::ordered_json;

void put(Json& json, const char* key, const std::optional<double>& value) {
  if (value) {
    json[key] = *value;
  }
}
template <int B, int S, int F>
void put(Json& json, const char* key, const std::optional<Quantity<B, S, F>>& value) {
  if (value) {
    json[key] = value->value();
  }
}
void put(Json& json, const char* key, const std::optional<Interval>& interval) {
  if (interval) {
    json[key] = {interval->low, interval->high};
  }
}

Json theta_of(const Law& law) {
  Json json{{"t0_s", law.fixed.value()}};
  put(json, "wave_s", law.wave);
  put(json, "bandwidth_bytes_per_s", law.bandwidth);
  put(json, "flops_per_s", law.flops);
  put(json, "dequant_ops_per_s", law.dequant_ops_per_s);
  json["p"] = law.p;
  return json;
}

Json intervals_of(const LawIntervals& ci90) {
  Json json = Json::object();
  put(json, "t0_s", ci90.fixed_s);
  put(json, "wave_s", ci90.wave_s);
  put(json, "bandwidth_bytes_per_s", ci90.bandwidth_bytes_per_s);
  put(json, "flops_per_s", ci90.flops_per_s);
  put(json, "dequant_ops_per_s", ci90.dequant_ops_per_s);
  put(json, "p", ci90.p);
  return json;
}

Json errors_of(const FitErrors& errors) {
  return {{"n", errors.n_points},
          {"median", errors.median},
          {"mape", errors.mean},
          {"p90", errors.p90},
          {"max", errors.max}};
}

Json point_of(const CalibrationPoint& point) {
  return {{"bytes", point.work.bytes.value()},
          {"flops", point.work.flops.value()},
          {"dequant_ops", point.work.dequant_ops},
          {"waves", point.work.waves},
          {"launches", point.work.launches},
          {"time_s", point.time.value()}};
}

Json class_of(const FittedClass& fitted) {
  Json json{{"id", text_of(fitted.id)},
            {"provenance", name(fitted.provenance)},
            {"theta", theta_of(fitted.law)},
            {"ci90", intervals_of(fitted.ci90)},
            {"loo", errors_of(fitted.loo)}};
  if (fitted.holdout) {
    json["holdout"] = errors_of(*fitted.holdout);
  }
  json["residuals"] = {
      {"q05", fitted.residuals.q05}, {"q50", fitted.residuals.q50}, {"q95", fitted.residuals.q95}};
  json["range"] = {{"bytes", {fitted.range.bytes.low, fitted.range.bytes.high}},
                   {"flops", {fitted.range.flops.low, fitted.range.flops.high}},
                   {"waves", {fitted.range.waves.low, fitted.range.waves.high}}};
  json["n_points"] = fitted.n_points;
  json["source"] = fitted.source;
  json["notes"] = fitted.notes;
  if (!fitted.points.empty()) {
    json["points"] = Json::array();
    for (const CalibrationPoint& point : fitted.points) {
      json["points"].push_back(point_of(point));
    }
  }
  return json;
}

Json ceilings_of(const Ceilings& ceilings) {
  Json json = Json::object();
  put(json, "read_bytes_per_s", ceilings.read);
  put(json, "copy_bytes_per_s", ceilings.copy);
  if (!ceilings.flops.empty()) {
    for (const auto& [format, rate] : ceilings.flops) {
      json["flops_per_s"][format] = rate.value();
    }
  }
  put(json, "host_to_device_bytes_per_s", ceilings.host_to_device);
  put(json, "host_to_device_call_s", ceilings.host_to_device_call);
  put(json, "launch_s", ceilings.launch);
  put(json, "graph_gap_s", ceilings.graph_gap);
  return json;
}

/// Text of strangers may hold broken UTF-8: it is mended, not refused.
std::string compact(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// As a member of the document, or nothing.
std::string session_member(const std::optional<Session>& session) {
  if (!session) {
    return "";
  }
  return "  \"session\": " +
         compact({{"utc", session->utc},
                  {"os_kernel", session->os_kernel},
                  {"compiler", session->compiler},
                  {"build", session->build},
                  {"n_threads", session->n_threads},
                  {"seed", session->seed},
                  {"duration_s", session->duration_s},
                  {"read_bytes_per_s", session->read_bytes_per_s},
                  {"flags", session->flags}}) +
         ",\n";
}

}  // namespace

std::string calibration_document(const Calibration& calibration) {
  Json device{{"name", calibration.device_name}, {"id", calibration.device_id}};
  if (calibration.n_compute_units) {
    device["n_compute_units"] = *calibration.n_compute_units;
  }
  const Json engine{{"name", calibration.engine}, {"version", calibration.engine_version}};
  std::string text =
      "{\n  \"schema\": \"kvfathom.calibration/1\",\n  \"device\": " + compact(device) +
      ",\n  \"engine\": " + compact(engine) + ",\n  \"source\": " + compact(calibration.source) +
      ",\n" + session_member(calibration.session) +
      "  \"ceilings\": " + compact(ceilings_of(calibration.ceilings)) + ",\n  \"classes\": [";
  const char* separator = "\n    ";
  for (const FittedClass& fitted : calibration.classes) {
    text += separator + compact(class_of(fitted));
    separator = ",\n    ";
  }
  return text + "\n  ]\n}\n";
}

}  // namespace kvfathom
