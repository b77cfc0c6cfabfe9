// How long one full memory evaluation takes inside the process.
#include <benchmark/benchmark.h>

#include "bench/models.h"
#include "model/engine/engine.h"

namespace kvfathom {
namespace {

/// Half of the layers on two GPUs, the rest on the host.
EngineSettings spread() {
  EngineSettings settings;
  settings.n_gpus = 2;
  settings.gpu_layers = 40;
  return settings;
}

void evaluate(benchmark::State& state,
              const char* engine,
              const ModelSpec& model,
              const EngineSettings& settings = {}) {
  const auto plan = engine_named(engine).prepare(model, settings);
  std::int64_t context_tokens = 4096;
  for (auto _ : state) {
    benchmark::DoNotOptimize(plan->evaluate(context_tokens));
    context_tokens = context_tokens == 65536 ? 4096 : context_tokens + 256;
  }
}

/// With the first ledger: passes are built when one asks for them.
void prepare(benchmark::State& state,
             const char* engine,
             const ModelSpec& model,
             const EngineSettings& settings = {}) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(engine_named(engine).prepare(model, settings)->evaluate(4096));
  }
}

BENCHMARK_CAPTURE(evaluate, ideal_llama_70b, "ideal", llama_70b());
BENCHMARK_CAPTURE(evaluate, llama_cpp_llama_70b, "llama.cpp", llama_70b());
BENCHMARK_CAPTURE(evaluate, llama_cpp_latent_80_layers, "llama.cpp", latent_80_layers());
BENCHMARK_CAPTURE(evaluate, llama_cpp_llama_70b_spread, "llama.cpp", llama_70b(), spread());
BENCHMARK_CAPTURE(prepare, llama_cpp_llama_70b, "llama.cpp", llama_70b());
BENCHMARK_CAPTURE(prepare, llama_cpp_latent_80_layers, "llama.cpp", latent_80_layers());
BENCHMARK_CAPTURE(prepare, llama_cpp_llama_70b_spread, "llama.cpp", llama_70b(), spread());

}  // namespace
}  // namespace kvfathom
