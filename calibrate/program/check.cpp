#include "calibrate/program/check.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "calibrate/program/decode_loop.h"
#include "calibrate/timing/host_timer.h"
#include "model/latency/calibrated_laws.h"
#include "model/latency/datasheet_laws.h"
#include "model/latency/step_ops.h"

namespace kvfathom::calibrate {
namespace {

using kernels::KvFormat;

struct LoopModel {
  const char* name;
  LoopShape shape;
};
struct LoopCache {
  const char* name;
  KvFormat format;
  DType dtype;
};

/// Weights of 140 to 200 MB, of which a step reads more than last caches hold.
const std::array<LoopModel, 3> kModels{
    {{"dense, 4 heads a KV head", {}},
     {"dense, 1 head a KV head", {.n_kv_heads = 8}},
     {"16 experts, 4 a token",
      {.n_layers = 4, .intermediate_size = 512, .n_experts = 16, .n_chosen = 4}}}};
constexpr std::array<LoopCache, 3> kCaches{{{"bf16", KvFormat::bf16, DType::bf16},
                                            {"q8_0", KvFormat::q8_0, DType::q8_0},
                                            {"q4_0", KvFormat::q4_0, DType::q4_0}}};
constexpr std::array<int, 2> kContexts{512, 8192};

std::unique_ptr<LawSource> laws_of(const Calibration& calibration) {
  HardwareSpec device;
  device.name = calibration.device_name;
  device.bandwidth = calibration.ceilings.read.value_or(BytesPerSecond(1e10));
  device.peak_rates = calibration.ceilings.flops;
  return std::make_unique<CalibratedLaws>(
      calibration, Provenance::measured, std::make_unique<DatasheetLaws>(device), EngineGaps{});
}

Estimate predicted(const LoopModel& model,
                   const LoopCache& cache,
                   int n_cached,
                   const LawSource& laws) {
  LatencySettings settings;
  settings.cache_type_k = settings.cache_type_v = cache.dtype;
  const ModelSpec spec = spec_of(model.shape);
  std::vector<Op> ops;
  StepOps(spec, settings).emit({.n_cached_tokens = n_cached}, ops);
  return StepPricer(laws).price(ops, n_layers(spec), false).time_s;
}

Timing measured(const LoopModel& model, const LoopCache& cache, int n_cached, int n_threads) {
  DecodeLoop loop(model.shape, cache.format, n_cached + 1, n_threads);
  std::int32_t token = 1;
  TimerOptions options;
  options.max_interval = 0.02;
  return time_on_host([&](int) { token = loop.step(token, n_cached); }, 1, options);
}

void row(std::ostream& out, const std::string& text, double predicted_s, const Timing& timing) {
  std::array<char, 128> line{};
  std::snprintf(line.data(),
                line.size(),
                "%-42s %9.3f %9.3f %8.1f %9.1f\n",
                text.c_str(),
                1e3 * predicted_s,
                1e3 * timing.median_s,
                100.0 * (predicted_s / timing.median_s - 1.0),
                100.0 * timing.interval);
  out << line.data() << std::flush;
}

}  // namespace

void check_calibration(std::ostream& out, const Calibration& calibration, int n_threads) {
  const std::unique_ptr<LawSource> laws = laws_of(calibration);
  out << "model, cache, context                      predicted  measured  error %   spread %\n";
  std::vector<double> errors;
  int n_covered = 0;
  for (const LoopModel& model : kModels) {
    for (const LoopCache& cache : kCaches) {
      for (const int n_cached : kContexts) {
        const Estimate estimate = predicted(model, cache, n_cached, *laws);
        const Timing timing = measured(model, cache, n_cached, n_threads);
        row(out,
            std::string(model.name) + ", " + cache.name + ", " + std::to_string(n_cached),
            estimate.value,
            timing);
        errors.push_back(std::abs(estimate.value / timing.median_s - 1.0));
        n_covered += estimate.low <= timing.median_s && timing.median_s <= estimate.high ? 1 : 0;
      }
    }
  }
  std::sort(errors.begin(), errors.end());
  out << "milliseconds a token; median error " << std::lround(100.0 * errors[errors.size() / 2])
      << " %, largest " << std::lround(100.0 * errors.back()) << " %, " << n_covered << " of "
      << errors.size() << " within the predicted interval\n";
}

}  // namespace kvfathom::calibrate
