#include "cli/speed_replay.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "cli/data_dir.h"
#include "cli/model_argument.h"
#include "model/error.h"
#include "model/io/hardware_json.h"
#include "model/latency/generation.h"
#include "model/rounding.h"

namespace kvfathom::cli {
namespace {

/// Chunks of a long prompt that are priced; the others lie between them.
constexpr std::int64_t kMostChunks = 4;

bool is_llama_cpp(const SpeedRow& row) {
  return row.engine == "llama.cpp";
}

void add_step(const StepOps& ops,
              const StepShape& shape,
              double n_times,
              Replay& replay,
              std::int64_t n_stages = 1,
              double n_in_flight = 1.0) {
  ReplayStep step{.ops = {}, .n_times = n_times, .n_stages = n_stages, .n_in_flight = n_in_flight};
  ops.emit(shape, step.ops);
  replay.steps.push_back(std::move(step));
}

/// `n_prompts` prompts, one or more of them in a step where they are shorter than a step.
void add_prompts(const StepOps& ops,
                 const SpeedRow& row,
                 std::int64_t n_prompts,
                 double n_times,
                 Replay& replay) {
  const std::int64_t n = row.prompt_tokens;
  const std::int64_t together = std::clamp<std::int64_t>(row.chunk_tokens / n, 1, n_prompts);
  const double groups = static_cast<double>(n_prompts) / static_cast<double>(together);
  const std::int64_t chunk = std::min(n, row.chunk_tokens);
  const std::int64_t n_chunks = n / chunk;
  // llama.cpp's layers are spread over the GPUs, which work on different chunks at a time.
  const std::int64_t n_stages = is_llama_cpp(row) ? row.n_gpus : 1;
  const std::int64_t n_steps = divide_up(n, chunk);
  const double in_flight = static_cast<double>(n_steps) * groups;
  const std::int64_t n_priced = std::min(n_chunks, kMostChunks);
  const double each = groups * n_times;
  for (std::int64_t i = 0; i < n_priced; ++i) {
    const std::int64_t at = (2 * i + 1) * n_chunks / (2 * n_priced);
    add_step(ops,
             {.phase = Phase::prefill,
              .n_sequences = together,
              .n_new_tokens = chunk,
              .n_cached_tokens = row.depth_tokens + at * chunk},
             each * static_cast<double>(n_chunks) / static_cast<double>(n_priced),
             replay,
             n_stages,
             in_flight);
  }
  if (const std::int64_t rest = n - n_chunks * chunk; rest > 0) {
    add_step(ops,
             {.phase = Phase::prefill,
              .n_sequences = together,
              .n_new_tokens = rest,
              .n_cached_tokens = row.depth_tokens + n_chunks * chunk},
             each,
             replay,
             n_stages,
             in_flight);
  }
}

/// Steps grow evenly with the depth, so the one in the middle stands for all.
void add_decode(const StepOps& ops, const SpeedRow& row, double n_times, Replay& replay) {
  const std::int64_t before =
      row.metric == SpeedMetric::decode ? row.depth_tokens : row.prompt_tokens;
  add_step(ops,
           {.n_sequences = row.batch, .n_cached_tokens = before + row.new_tokens / 2},
           n_times,
           replay);
}

void add_steps(const StepOps& ops, const SpeedRow& row, Replay& replay) {
  const auto batch = static_cast<double>(row.batch);
  const auto n_new = static_cast<double>(row.new_tokens);
  switch (row.metric) {
    case SpeedMetric::prefill:
      add_prompts(ops, row, row.batch, 1.0, replay);
      replay.measured_s = batch * static_cast<double>(row.prompt_tokens) / row.value;
      return;
    case SpeedMetric::first_token_s:
      add_prompts(ops, row, row.batch, 1.0, replay);
      replay.measured_s = row.value;
      return;
    case SpeedMetric::decode:
      add_decode(ops, row, n_new, replay);
      replay.measured_s = batch * n_new / row.value;
      return;
    case SpeedMetric::whole:
      add_prompts(ops, row, row.batch, 1.0, replay);
      add_decode(ops, row, n_new - 1.0, replay);
      replay.measured_s = batch * n_new / row.value;
      return;
    case SpeedMetric::per_token_s:
      // While one request gets its tokens, each of the others ends once and is followed by another,
      // whose prompt holds all of them up.
      add_decode(ops, row, 1.0, replay);
      if (row.batch > 1) {
        add_prompts(ops, row, 1, (batch - 1.0) / n_new, replay);
      }
      replay.measured_s = row.value;
      return;
  }
}

LatencySettings settings_of(const SpeedRow& row) {
  LatencySettings settings{.scheme = {},
                           .offload = {},
                           .cache_type_k = row.cache_type,
                           .cache_type_v = row.cache_type,
                           .state_type = row.state_type,
                           .tensor_parallel = row.tensor_parallel,
                           .expert_parallel = row.expert_parallel,
                           .absorbed_prefill = is_llama_cpp(row)};
  settings.pipeline_parallel = is_llama_cpp(row) ? row.n_gpus : 1;
  return settings;
}

const ModelSpec& model_named(const std::string& name, const std::string& weights) {
  static std::map<std::pair<std::string, std::string>, ModelSpec> models;
  const auto key = std::make_pair(name, weights);
  const auto known = models.find(key);
  return known != models.end()
             ? known->second
             : models.emplace(key, read_model(name, Text(weights)).spec).first->second;
}

const HardwareSpec& device_named(const std::string& id) {
  static std::map<std::string, HardwareSpec> devices;
  const auto known = devices.find(id);
  return known != devices.end()
             ? known->second
             : devices.emplace(id, find_hardware(data_directory(), id)).first->second;
}

const StepOps& ops_of(const SpeedRow& row) {
  static std::map<std::string, StepOps> all;
  const std::string key = row.model + "|" + row.weights + "|" + row.engine + "|" +
                          std::string(name(row.cache_type)) + "|" +
                          std::string(name(row.state_type)) + "|" + std::to_string(row.n_gpus) +
                          "|" + std::to_string(row.expert_parallel);
  const auto known = all.find(key);
  return known != all.end()
             ? known->second
             : all.emplace(key, StepOps(model_named(row.model, row.weights), settings_of(row)))
                   .first->second;
}

}  // namespace

void Replays::add(const SpeedRow& row, const EngineSpeed* speed) {
  Replay replay;
  replay.row = &row;
  try {
    if (speed == nullptr) {
      throw Unsupported(row.engine, "no speeds are fitted to this engine", "");
    }
    const StepOps& ops = ops_of(row);
    const HardwareSpec& device = device_named(row.gpu);
    replay.device = &device;
    replay.device_class = device_class(device);
    replay.n_layers = ops.n_layers();
    const bool has_prompt = row.metric != SpeedMetric::decode;
    replay.run = {.phase = row.is_prefill() ? Phase::prefill : Phase::decode,
                  .backend = row.backend,
                  .flash_attention = row.flash_attention};
    replay.laws = std::make_unique<EngineLaws>(*speed, device, replay.run);
    if (has_prompt && !peak_rate(device, DType::bf16)) {
      throw Unsupported(row.gpu, "its data sheet names no peak rate", "");
    }
    add_steps(ops, row, replay);
  } catch (const Error& error) {
    replay.refused = error.what();
  }
  all_.push_back(std::move(replay));
}

Estimate predicted_time(const Replay& replay, const LawSource& laws) {
  StepPricer pricer(laws);
  Estimate sum{.provenance = Provenance::exact};
  for (const ReplayStep& step : replay.steps) {
    const StepTime time = pricer.price(step.ops, replay.n_layers, false);
    const double n =
        step.n_times / pipeline_speed_up(step.n_stages, step.n_in_flight, laws.pipeline_share());
    sum.value += n * time.time_s.value;
    sum.low += n * time.time_s.low;
    sum.high += n * time.time_s.high;
    sum.provenance = worst(sum.provenance, time.time_s.provenance);
  }
  return sum;
}

}  // namespace kvfathom::cli
