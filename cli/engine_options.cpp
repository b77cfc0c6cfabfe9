#include "cli/engine_options.h"

#include <array>
#include <string>

#include "cli/query.h"
#include "model/error.h"

namespace kvfathom::cli {
namespace {

struct Option {
  const char* name;
  Text EngineOptions::*text;
  const char* instead;
};

using E = EngineOptions;
constexpr const char* kSplitsLayers = "llama.cpp splits layers over GPUs: --gpus N";

/// What llama-server has no counterpart of.
constexpr std::array<Option, 8> kNotLlamaCpp{
    {{"--tensor-parallel", &E::tensor_parallel, kSplitsLayers},
     {"--pipeline-parallel", &E::pipeline_parallel, kSplitsLayers},
     {"--expert-parallel", &E::expert_parallel, kSplitsLayers},
     {"--data-parallel", &E::data_parallel, "one server is one replica: leave it out"},
     {"--gpu-memory-utilization",
      &E::gpu_memory_utilization,
      "--reserve SIZE keeps memory of a GPU free"},
     {"--max-batched-tokens", &E::max_batched_tokens, "use --batch-tokens or --ubatch-tokens"},
     {"--max-sequences", &E::max_sequences, "use --sequences"},
     {"--block-tokens", &E::block_tokens, "its cache has no pages: leave it out"}}};

/// What is llama-server's alone.
constexpr std::array<Option, 5> kLlamaCppOnly{
    {{"--batch-tokens", &E::batch_tokens, "use --max-batched-tokens"},
     {"--ubatch-tokens", &E::ubatch_tokens, "use --max-batched-tokens"},
     {"--outputs", &E::outputs, "leave it out"},
     {"--kv-unified", &E::kv_unified, "leave it out: sequences share one cache"},
     {"--swa-full", &E::swa_full, "use --scheme full"}}};

constexpr Option kFlashAttention{
    "--flash-attention", &E::flash_attention, "leave it out: scores are never stored whole"};

/// What only an engine with a scheduler and pages has.
constexpr std::array<Option, 3> kServingOnly{
    {{"--gpu-memory-utilization",
      &E::gpu_memory_utilization,
      "--reserve SIZE keeps memory of a GPU free"},
     {"--max-sequences", &E::max_sequences, "use --sequences"},
     {"--block-tokens", &E::block_tokens, "its cache has no pages: leave it out"}}};

bool asks_for_one_rank(const Option& option, const std::string& text) {
  return std::string_view(option.name).ends_with("-parallel") && text == "1";
}

void require_absent(const EngineOptions& options,
                    const EngineInfo& engine,
                    const Option& option,
                    const std::string& owner) {
  const Text& text = options.*option.text;
  if (text && !asks_for_one_rank(option, *text)) {
    throw InputError(
        option.name, std::string(engine.name) + " has no such option", option.instead + owner);
  }
}

}  // namespace

void require_own_options(const EngineOptions& options, const EngineInfo& engine) {
  if (engine.name == "llama.cpp") {
    for (const Option& option : kNotLlamaCpp) {
      require_absent(options, engine, option, "");
    }
    return;
  }
  const std::string owner = options.engine ? "" : ", or name --engine llama.cpp";
  for (const Option& option : kLlamaCppOnly) {
    require_absent(options, engine, option, owner);
  }
  const bool is_serving = loads_checkpoints(engine) && engine.name != "huggingface";
  if (engine.name != "huggingface") {  // whose eager attention stores the scores
    require_absent(options, engine, kFlashAttention, owner);
  }
  for (const Option& option : kServingOnly) {
    if (!is_serving) {
      require_absent(options, engine, option, "");
    }
  }
}

}  // namespace kvfathom::cli
