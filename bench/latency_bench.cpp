// How long pricing one step takes inside the process, and a sweep of a million of them.
#include <array>

#include <benchmark/benchmark.h>

#include "bench/models.h"
#include "model/latency/datasheet_laws.h"
#include "model/latency/generation.h"

namespace kvfathom {
namespace {

HardwareSpec h100() {
  HardwareSpec device;
  device.name = "H100 SXM";
  device.bandwidth = BytesPerSecond(3.35e12);
  device.peak_rates["bf16"] = FlopsPerSecond(989e12);
  device.n_compute_units = 132;
  return device;
}

void decode_steps(benchmark::State& state, const ModelSpec& model) {
  const StepOps steps(model, {});
  const DatasheetLaws laws(h100());
  Generation generation(steps, laws, 2048);
  std::int64_t context = 0;
  for (auto _ : state) {
    context = (context + 997) % 131072;
    benchmark::DoNotOptimize(generation.decode(context, 1 + context % 256));
  }
}

void dense_80_layers(benchmark::State& state) {
  decode_steps(state, llama_70b());
}
BENCHMARK(dense_80_layers);

void latent_moe_80_layers(benchmark::State& state) {
  decode_steps(state, latent_80_layers());
}
BENCHMARK(latent_moe_80_layers);

/// Model x GPU x context x batch: 2 x 5 x 100,000 points.
void a_million_points(benchmark::State& state) {
  const std::array<ModelSpec, 2> models{llama_70b(), latent_80_layers()};
  constexpr int kGpus = 5;
  constexpr std::int64_t kContexts = 1000;
  constexpr std::int64_t kBatches = 100;
  for (auto _ : state) {
    double sum = 0.0;
    for (const ModelSpec& model : models) {
      const StepOps steps(model, {});
      for (int gpu = 0; gpu < kGpus; ++gpu) {
        HardwareSpec device = h100();
        device.bandwidth = device.bandwidth * (1.0 + gpu);
        const DatasheetLaws laws(device);
        Generation generation(steps, laws, 2048);
        for (std::int64_t i = 0; i < kContexts * kBatches; ++i) {
          sum += generation.decode(i / kBatches * 131, 1 + i % kBatches).time_s.value;
        }
      }
    }
    benchmark::DoNotOptimize(sum);
  }
}
BENCHMARK(a_million_points)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace kvfathom
