// What naming a GPU costs: by the name of its file, and by an alias that only the files know.
#include <filesystem>

#include <benchmark/benchmark.h>

#include "model/io/hardware_json.h"

namespace {

const std::filesystem::path kData = std::filesystem::path(KVFATHOM_SOURCE_DIR) / "data";

void find_by_id(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(kvfathom::find_hardware(kData, "rtx-4090"));
  }
}
BENCHMARK(find_by_id)->Unit(benchmark::kMicrosecond);

void find_by_alias(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(kvfathom::find_hardware(kData, "DGX Spark"));
  }
}
BENCHMARK(find_by_alias)->Unit(benchmark::kMicrosecond);

void list_all(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(kvfathom::list_hardware(kData));
  }
}
BENCHMARK(list_all)->Unit(benchmark::kMicrosecond);

}  // namespace
