#include "model/engine/engine.h"

#include <algorithm>
#include <array>
#include <string>

#include "model/cache/scheme.h"
#include "model/engine/huggingface/policy.h"
#include "model/engine/ideal.h"
#include "model/engine/llama_cpp/policy.h"
#include "model/engine/sglang/policy.h"
#include "model/engine/tensorrt_llm/policy.h"
#include "model/engine/vllm/policy.h"
#include "model/error.h"

namespace kvfathom {
namespace {

constexpr std::array kEngines{
    EngineInfo{.name = "ideal",
               .summary = "the formula: stored weights and exactly the tokens asked for",
               .newest_version = "",
               .source = "the schemes' own papers; see `kvfathom list schemes`",
               .prepare = prepare_ideal},
    EngineInfo{
        .name = "reference",
        .summary = "our own kernels: memory as ideal, speed as calibrated",
        .newest_version = "",
        .source = "kernels/; until this device is calibrated, assumed shares of its data sheet",
        .prepare = prepare_ideal},
    EngineInfo{.name = "llama.cpp",
               .summary = "llama-server with all layers on one GPU, or on the CPU",
               .newest_version = "0.5.0",
               .source = "github.com/ggml-org/llama.cpp: loader, cache and graph allocator",
               .prepare = prepare_llama_cpp},
    EngineInfo{.name = "vllm",
               .summary = "blocks of cache in what a share of the device leaves",
               .newest_version = "0.26.0",
               .source = "published start-up logs; data/engines/vllm.json",
               .prepare = prepare_vllm},
    EngineInfo{.name = "sglang",
               .summary = "weights and token pool in a static share",
               .newest_version = "",
               .source = "published start-up logs; default shares are recalled",
               .prepare = prepare_sglang},
    EngineInfo{.name = "tensorrt-llm",
               .summary = "blocks of cache in a share of what is free",
               .newest_version = "",
               .source = "published start-up logs",
               .prepare = prepare_tensorrt_llm},
    EngineInfo{.name = "huggingface",
               .summary = "transformers: exact K and V, prompts in one pass",
               .newest_version = "",
               .source = "DynamicCache of huggingface/transformers; peaks are modelled",
               .prepare = prepare_huggingface},
};

template <class Row>
std::string names_of(std::span<const Row> rows) {
  std::string names;
  for (const Row& row : rows) {
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  return names;
}

}  // namespace

std::span<const EngineInfo> engines() {
  return kEngines;
}

const EngineInfo& engine_named(std::string_view name) {
  const auto row = std::ranges::find(kEngines, name, &EngineInfo::name);
  if (row == kEngines.end()) {
    throw InputError("--engine",
                     '"' + std::string(name) + "\" is not an engine that is known",
                     "use one of " + names_of(engines()));
  }
  return *row;
}

LedgerLine weights_line(Device device, std::int64_t bytes, const EngineSettings& settings) {
  LedgerLine line = exact_line(device, LedgerKind::weights, bytes);
  if (settings.weights_provenance != Provenance::exact) {
    line.provenance = settings.weights_provenance;
    line.low_bytes -= bytes / 100;
    line.high_bytes += bytes / 100;
  }
  return line;
}

std::vector<MovedLayers> moved_layers(const Placement& placement) {
  std::vector<MovedLayer> by_layer = placement.moved;
  std::ranges::sort(by_layer, {}, &MovedLayer::layer);
  std::vector<MovedLayers> runs;
  for (const MovedLayer& moved : by_layer) {
    const bool follows = !runs.empty() && runs.back().last + 1 == moved.layer &&
                         runs.back().matrices == moved.matrices &&
                         runs.back().device.index == moved.device;
    if (follows) {
      runs.back().last = moved.layer;
    } else {
      runs.push_back({moved.layer, moved.layer, moved.matrices, {moved.device}});
    }
  }
  return runs;
}

std::string_view name(MovedMatrices matrices) {
  constexpr std::array<std::string_view, 4> kNames{"experts", "all", "all_but_up", "down"};
  return kNames.at(static_cast<std::size_t>(matrices));
}

std::string_view name(CacheScheme scheme) {
  return cache::all_schemes()[static_cast<std::size_t>(scheme)].name;
}

CacheScheme scheme_named(std::string_view name) {
  const auto schemes = cache::all_schemes();
  const auto row = std::ranges::find(schemes, name, &cache::SchemeInfo::name);
  if (row == schemes.end()) {
    throw InputError("--scheme",
                     '"' + std::string(name) + "\" is not a scheme that is known",
                     "use one of " + names_of(schemes));
  }
  return row->scheme;
}

}  // namespace kvfathom
