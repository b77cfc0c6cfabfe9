#include "calibrate/program/check.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <ostream>
#include <string>
#include <vector>

#include "calibrate/program/decode_loop.h"
#include "calibrate/timing/host_timer.h"
#include "kernels/bandwidth/bandwidth.h"
#include "model/latency/calibrated_laws.h"
#include "model/latency/datasheet_laws.h"
#include "model/latency/step_ops.h"

namespace kvfathom::calibrate {
namespace {

using kernels::KvFormat;

struct LoopModel {
  const char* name = "";
  LoopShape shape = {};
};
struct LoopKind {
  const char* name;
  LoopCache cache;
  CacheScheme scheme = CacheScheme::native;
  int window_tokens = 0;
  int longest = 8192;  ///< cached tokens, of the longer of two steps
};
/// One figure: a model's step behind so many cached tokens.
struct LoopStep {
  LoopModel model;
  LoopKind kind;
  int n_cached = 0;
};

/// A step reads 60 to 270 MB of weights, more than last caches hold.
const LoopModel kGrouped{"dense 1024, 4 heads a KV head", {}};
const LoopModel kSingle{"dense 2048, 1 head a KV head",
                        {.hidden_size = 2048,
                         .n_layers = 3,
                         .n_heads = 16,
                         .n_kv_heads = 16,
                         .intermediate_size = 5632}};
const LoopModel kRouted{"16 experts, 4 a token",
                        {.n_layers = 4, .intermediate_size = 512, .n_experts = 16, .n_chosen = 4}};
const LoopModel kLatent{
    "dense 1024, latents of 512",
    {.latents = {
         .kv_lora_rank = 512, .qk_nope_head_dim = 128, .qk_rope_head_dim = 64, .v_head_dim = 128}}};

const LoopKind kBf16{"bf16", {}};
const std::array<LoopKind, 5> kKinds{
    {kBf16,
     {"q8_0", {KvFormat::q8_0}},
     {"q4_0", {KvFormat::q4_0}},
     {.name = "window of 1024", .cache = {}, .window_tokens = 1024},
     {.name = "residual",
      .cache = {.scheme = LoopScheme::residual},
      .scheme = CacheScheme::residual,
      .longest = 2048}}};
/// Keys stand in for values only where their projection is square.
const LoopKind kKeys{
    .name = "k-only", .cache = {.scheme = LoopScheme::k_only}, .scheme = CacheScheme::k_only};

std::vector<LoopStep> all_steps() {
  constexpr int kShort = 512;
  std::vector<LoopStep> steps;
  const auto add = [&](LoopModel model, const LoopKind& kind) {
    model.shape.window_tokens = kind.window_tokens;
    steps.push_back({model, kind, kShort});
    steps.push_back({model, kind, kind.longest});
  };
  for (const LoopModel& model : {kGrouped, kSingle, kRouted}) {
    for (const LoopKind& kind : kKinds) {
      add(model, kind);
    }
  }
  add(kSingle, kKeys);
  add(kLatent, kBf16);
  return steps;
}

DType dtype_of(KvFormat format) {
  return format == KvFormat::q8_0   ? DType::q8_0
         : format == KvFormat::q4_0 ? DType::q4_0
                                    : DType::bf16;
}

std::unique_ptr<LawSource> laws_of(const Calibration& calibration) {
  HardwareSpec device;
  device.name = calibration.device_name;
  device.bandwidth = calibration.ceilings.read.value_or(BytesPerSecond(1e10));
  device.peak_rates = calibration.ceilings.flops;
  return std::make_unique<CalibratedLaws>(std::vector<Calibration>{calibration},
                                          Provenance::measured,
                                          std::make_unique<DatasheetLaws>(device),
                                          EngineGaps{});
}

Estimate predicted(const LoopStep& step, const LawSource& laws) {
  LatencySettings settings;
  settings.scheme = step.kind.scheme;
  settings.cache_type_k = settings.cache_type_v = dtype_of(step.kind.cache.format);
  const ModelSpec spec = spec_of(step.model.shape);
  std::vector<Op> ops;
  StepOps(spec, settings).emit({.n_cached_tokens = step.n_cached}, ops);
  return StepPricer(laws).price(ops, n_layers(spec), false).time_s;
}

/// What is read beside each step: how fast the machine's memory is at that moment.
class Yardstick {
 public:
  explicit Yardstick(int n_threads) : words_(kWords), n_threads_(n_threads) {
    bench::fill_random(words_, 1);
  }
  void run() {
    sum_ = sum_ + kernels::bandwidth_cpu({.op = kernels::BandwidthOp::read,
                                          .n_words = static_cast<std::int64_t>(words_.size()),
                                          .source = words_.data()},
                                         n_threads_);
  }
  [[nodiscard]] static double bytes() { return 4.0 * kWords; }

 private:
  static constexpr std::size_t kWords = std::size_t{1} << 26;
  std::vector<std::uint32_t> words_;
  int n_threads_;
  std::uint32_t sum_ = 0;
};

PairedTiming measured(const LoopStep& step, int n_threads, Yardstick& beside) {
  DecodeLoop loop(step.model.shape, step.kind.cache, step.n_cached + 1, n_threads);
  std::int32_t token = 1;
  TimerOptions options;
  options.max_interval = 0.02;
  options.max_total_s = 4.0;
  return time_beside([&](int) { token = loop.step(token, step.n_cached); },
                     1,
                     [&](int) { beside.run(); },
                     1,
                     options);
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::string summary(std::vector<double> errors, const char* what) {
  std::sort(errors.begin(), errors.end());
  return std::string(what) + ": median error " +
         std::to_string(std::lround(100.0 * errors[errors.size() / 2])) + " %, largest " +
         std::to_string(std::lround(100.0 * errors.back())) + " %\n";
}

}  // namespace

void check_calibration(std::ostream& out, const Calibration& calibration, int n_threads) {
  const std::unique_ptr<LawSource> laws = laws_of(calibration);
  const double calibrated_read = calibration.session
                                     ? mean(calibration.session->read_bytes_per_s)
                                     : calibration.ceilings.read.value_or(BytesPerSecond()).value();
  Yardstick yardstick(n_threads);
  std::vector<double> errors;
  std::vector<double> equal_errors;
  out << "ms a token; error as measured, and had memory been as fast as when calibrated\n"
         "model, cache, context                              predicted measured  read GB/s  error "
         "%  "
         "equal %\n";
  for (const LoopStep& step : all_steps()) {
    const Estimate estimate = predicted(step, *laws);
    const PairedTiming timing = measured(step, n_threads, yardstick);
    const double read = Yardstick::bytes() / timing.yardstick.median_s;
    const double error = estimate.value / timing.run.median_s - 1.0;
    const double equal = (1.0 + error) * calibrated_read / read - 1.0;
    const std::string name =
        std::string(step.model.name) + ", " + step.kind.name + ", " + std::to_string(step.n_cached);
    std::array<char, 128> line{};
    std::snprintf(line.data(),
                  line.size(),
                  "%-50s %9.2f %8.2f %10.1f %8.1f %8.1f\n",
                  name.c_str(),
                  1e3 * estimate.value,
                  1e3 * timing.run.median_s,
                  1e-9 * read,
                  100.0 * error,
                  100.0 * equal);
    out << line.data() << std::flush;
    errors.push_back(std::abs(error));
    equal_errors.push_back(std::abs(equal));
  }
  out << summary(errors, "as measured") << summary(equal_errors, "at equal memory");
}

}  // namespace kvfathom::calibrate
