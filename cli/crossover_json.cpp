// `kvfathom crossover --json`.
#include <utility>

#include "cli/crossover.h"
#include "cli/json_writer.h"

namespace kvfathom::cli {
namespace {

Json count_or_null(const std::optional<std::int64_t>& n) {
  return n ? Json(*n) : Json(nullptr);
}

Json reigns_json(const std::vector<Reign>& reigns) {
  Json json = Json::array();
  for (const Reign& reign : reigns) {
    json.push_back(
        {{"from_tokens", reign.from_tokens}, {"winner", reign.fetch ? "fetch" : "recompute"}});
  }
  return json;
}

Json rate_or_null(double bytes_per_s) {
  return bytes_per_s > 0.0 ? Json(bytes_per_s) : Json(nullptr);
}

Json arms_json(const std::vector<Arm>& arms) {
  Json json = Json::array();
  for (const Arm& arm : arms) {
    json.push_back({{"arm", arm.id},
                    {"name", arm.name},
                    {"how", text_or_null(arm.how)},
                    {"moved_bytes", arm.moved_bytes},
                    {"time_s", estimate_json(arm.time_s)},
                    {"exact", arm.exact}});
  }
  return json;
}

Json ways_json(const Ways& ways) {
  const Contest& contest = ways.contest;
  return {{"fetch_s", estimate_json(contest.fetch_s)},
          {"recompute_s", estimate_json(contest.recompute_s)},
          {"crossover_tokens", count_or_null(crossover_tokens(contest))},
          {"crossover_tokens_low", count_or_null(contest.crossover_low)},
          {"crossover_tokens_high", count_or_null(contest.crossover_high)},
          {"crossover_bandwidth_bytes_per_s", rate_or_null(contest.even_bandwidth_bytes_per_s)},
          {"best_split",
           {{"fetched_tokens", ways.split.fetched_tokens},
            {"recomputed_tokens", ways.split.recomputed_tokens},
            {"time_s", ways.split.time_s}}},
          {"arms", arms_json(ways.arms)},
          {"sentence", contest.sentence}};
}

Json case_json(const TierAnswer& answer, const std::string& scheme) {
  Json json = ways_json(answer.idle);
  json["tier"] = answer.tier.name;
  json["bandwidth_bytes_per_s"] = answer.tier.link.bandwidth.value();
  json["scheme"] = scheme;
  json["reigns"] = reigns_json(answer.idle.contest.reigns);
  json["reigns_loaded"] =
      answer.loaded ? reigns_json(answer.loaded->contest.reigns) : Json::array();
  json["loaded"] = answer.loaded ? ways_json(*answer.loaded) : Json(nullptr);
  return json;
}

Json decode_json(const CrossoverAnswer& answer) {
  Json json = Json::array();
  for (const DecodeArm& arm : answer.decode) {
    for (std::size_t i = 0; i < arm.pays.size(); ++i) {
      json.push_back({{"scheme", arm.scheme},
                      {"batch", kDecodeBatches[i]},
                      {"pays_from_tokens", count_or_null(pays_from(arm.pays[i]))},
                      {"pays_at", spans_json(arm.pays[i])}});
    }
  }
  return json;
}

Json map_json(const BandwidthMap& map) {
  return {{"lengths_tokens", map.lengths_tokens},
          {"bandwidths_bytes_per_s", map.rows},
          {"recompute_over_fetch", map.ratios}};
}

Json map_json(const BatchMap& map) {
  return {{"lengths_tokens", map.lengths_tokens},
          {"batches", map.rows},
          {"recompute_over_fetch", map.ratios}};
}

Json json_of(const Query& query, const CrossoverAnswer& answer) {
  Json json = document("crossover");
  json["model"] = model_json(query.model.spec);
  json["gpu"] = {{"name", query.machine.name}, {"count", query.machine.n_gpus}};
  json["engine"] = engine_json(query);
  json["context_tokens"] = answer.context_tokens;
  json["cases"] = Json::array();
  for (const TierAnswer& tier : answer.tiers) {
    json["cases"].push_back(case_json(tier, answer.label.spelling));
  }
  if (answer.fit) {
    json["fits"] = answer.fit->fits;
    json["needed_bytes"] = answer.fit->needed_bytes;
    json["capacity_bytes"] = answer.fit->capacity_bytes;
  }
  json["decode"] = decode_json(answer);
  if (answer.busy) {
    json["load"] = {{"compute_share", answer.busy->compute_share},
                    {"link_share", answer.busy->link_share},
                    {"queued_bytes", answer.busy->queued.value()},
                    {"running_sequences", answer.busy->running.n_sequences}};
  }
  if (answer.busy && answer.busy->running.n_sequences > 0) {
    json["running"] = {{"sequences", answer.busy->running.n_sequences},
                       {"step_s", answer.running_step_s},
                       {"step_with_chunk_s", answer.running_with_chunk_s}};
  }
  if (answer.map) {
    json["map"] = map_json(*answer.map);
  }
  if (answer.map_loaded) {
    json["map_loaded"] = map_json(*answer.map_loaded);
  }
  if (answer.batch_map) {
    json["batch_map"] = map_json(*answer.batch_map);
  }
  if (answer.batch_map_loaded) {
    json["batch_map_loaded"] = map_json(*answer.batch_map_loaded);
  }
  json["laws"] = answer.laws;
  return json;
}

}  // namespace

void print_crossover_json(Console& console, const Query& query, const CrossoverAnswer& answer) {
  print_json(console, json_of(query, answer));
}

}  // namespace kvfathom::cli
