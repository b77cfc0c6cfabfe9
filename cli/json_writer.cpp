#include "cli/json_writer.h"

#include <set>

#include "cli/quality.h"
#include "model/architecture/parameters.h"

namespace kvfathom::cli {

Json document(const std::string& name) {
  Json json;
  json["schema"] = "kvfathom." + name + "/1";
  json["kvfathom_version"] = KVFATHOM_VERSION;
  return json;
}

Json model_json(const ModelSpec& model) {
  return {{"name", model.name},
          {"source", model.source},
          {"architecture", model.architecture},
          {"n_parameters", count_parameters(model).total},
          {"n_parameters_active", count_parameters(model).active}};
}

Json engine_json(const Query& query) {
  return {{"name", query.engine->name},
          {"version", text_or_null(query.engine_version)},
          {"default_refused", text_or_null(query.default_refused)}};
}

Json scheme_json(const SchemeLabel& label) {
  Json json{{"id", label.id},
            {"cache_type_k", name(label.k)},
            {"cache_type_v", name(label.v)},
            {"exact", label.exact},
            {"engine_support", label.engine_support},
            {"spelling", label.spelling},
            {"notes", label.notes}};
  if (!label.exact) {
    json["quality"] = quality_json(label.quality);
  }
  return json;
}

Json cache_json(const CacheReport& cache) {
  Json groups = Json::array();
  for (const CacheGroup& group : cache.groups) {
    groups.push_back({{"scheme", group.scheme},
                      {"n_layers", group.n_layers},
                      {"cells", group.cells},
                      {"streams", group.streams},
                      {"k_bytes", group.k_bytes},
                      {"v_bytes", group.v_bytes},
                      {"state_bytes", group.state_bytes}});
  }
  Json offloaded;
  if (cache.offloaded) {
    offloaded = {{"tier", cache.offloaded->tier}, {"bytes", cache.offloaded->bytes}};
  }
  return {{"bytes", cache.bytes()},
          {"k_bytes", cache.k_bytes},
          {"v_bytes", cache.v_bytes},
          {"state_bytes", cache.state_bytes},
          {"bytes_per_token", cache.bytes_per_token},
          {"fixed_bytes_per_sequence", cache.fixed_bytes_per_sequence},
          {"prefill_peak_bytes", cache.prefill_peak_bytes},
          {"offloaded", std::move(offloaded)},
          {"groups", std::move(groups)}};
}

Json ledger_json(const MemoryLedger& ledger) {
  Json lines = Json::array();
  for (const LedgerLine& line : ledger.lines) {
    Json json{{"device", name(line.device)},
              {"line", name(line.kind)},
              {"bytes", line.bytes},
              {"provenance", name(line.provenance)}};
    if (line.provenance != Provenance::exact) {
      json["low_bytes"] = line.low_bytes;
      json["high_bytes"] = line.high_bytes;
    }
    lines.push_back(std::move(json));
  }
  return lines;
}

Json device_totals_json(const MemoryLedger& ledger, const Machine& machine) {
  Json totals = Json::array();
  std::set<Device> seen;
  for (const LedgerLine& line : ledger.lines) {
    if (!seen.insert(line.device).second) {
      continue;
    }
    const DeviceTotal total = ledger.total(line.device);
    Json json{{"device", name(line.device)},
              {"bytes", total.bytes},
              {"capacity_bytes", nullptr},
              {"fits", nullptr}};
    if (total.high_bytes != total.bytes) {
      json["high_bytes"] = total.high_bytes;
    }
    for (const Capacity& capacity : machine.capacities) {
      if (capacity.device == line.device) {
        json["capacity_bytes"] = capacity.bytes;
        json["fits"] = held(ledger, capacity).high_bytes <= capacity.bytes;
        if (capacity.with_gpu0) {
          json["shared_with"] = name(Device{0});
        }
      }
    }
    totals.push_back(std::move(json));
  }
  return totals;
}

Json placement_json(const std::optional<Placement>& placement) {
  if (!placement) {
    return nullptr;
  }
  Json layers = Json::array();
  for (const auto& [device, count] : placement->layers) {
    layers.push_back({{"device", name(device)}, {"count", count}});
  }
  Json moved = Json::array();
  for (const MovedLayers& run : moved_layers(*placement)) {
    moved.push_back({{"first_layer", run.first},
                     {"last_layer", run.last},
                     {"matrices", name(run.matrices)},
                     {"device", name(run.device)}});
  }
  return {{"layers", std::move(layers)},
          {"host_expert_layers", placement->host_expert_layers},
          {"moved", std::move(moved)}};
}

Json estimate_json(const Estimate& estimate) {
  return {{"value", estimate.value},
          {"low", estimate.low},
          {"high", estimate.high},
          {"provenance", name(estimate.provenance)}};
}

Json spans_json(const std::vector<Span>& spans) {
  Json json = Json::array();
  for (const Span& span : spans) {
    json.push_back({{"from_tokens", span.from_tokens},
                    {"to_tokens", span.to_tokens ? Json(*span.to_tokens) : Json(nullptr)}});
  }
  return json;
}

Json text_or_null(const std::string& text) {
  return text.empty() ? Json(nullptr) : Json(text);
}

Json error_json(const Error& error) {
  // A place reads "file: field" where a file has fields; options have none.
  const std::string& place = error.where();
  const std::size_t colon = place.rfind(": ");
  Json json = document("error");
  json["exit_code"] = error.exit_code();
  json["where"] = colon == std::string::npos ? place : place.substr(0, colon);
  json["field"] = colon == std::string::npos ? Json(nullptr) : Json(place.substr(colon + 2));
  json["found"] = error.found();
  json["allowed"] = text_or_null(error.allowed());
  json["message"] = error.what();
  return json;
}

void print_json(Console& console, const Json& json) {
  console.line(json.dump(2, ' ', false, Json::error_handler_t::replace));
}

}  // namespace kvfathom::cli
