#include "model/engine/tensorrt_llm/policy.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "model/cache/applicability.h"
#include "model/engine/serving/plan.h"
#include "model/engine/serving/profile.h"
#include "model/error.h"

namespace kvfathom {
namespace {

constexpr double kDefaultShare = 0.9;       // of the free memory
constexpr std::int64_t kBlockTokens = 32;   // tokens_per_block, as logged since 2025
constexpr std::int64_t kStepTokens = 8192;  // max_num_tokens of trtllm-serve
constexpr std::int64_t kStepSequences = 256;

/// What the share leaves of the memory that is free behind the fixed lines.
std::int64_t spare_of_free(const std::vector<LedgerLine>& fixed,
                           std::int64_t device_memory_bytes,
                           const EngineSettings& settings) {
  std::int64_t free = device_memory_bytes;
  for (const LedgerLine& line : fixed) {
    free -= line.bytes;
  }
  const double spare = static_cast<double>(std::max<std::int64_t>(0, free)) *
                       (1.0 - serving::share_of_device(settings, kDefaultShare));
  return static_cast<std::int64_t>(std::ceil(spare));
}

std::string trtllm_command(const EngineSettings& settings,
                           std::int64_t context_tokens,
                           std::string_view model) {
  const bool wide = settings.cache_type_k == DType::f16 || settings.cache_type_k == DType::bf16;
  if (!wide || settings.block_tokens) {
    return {};  // both are lines of its options file, not arguments
  }
  std::string text =
      "trtllm-serve " + std::string(model) + " --max_seq_len " + std::to_string(context_tokens);
  serving::add_count(text, "--max_batch_size", settings.max_sequences);
  serving::add_count(text, "--max_num_tokens", settings.max_batched_tokens);
  serving::add_share(text, "--kv_cache_free_gpu_memory_fraction", settings.gpu_memory_utilization);
  serving::add_ranks(text, "--tp_size", settings.tensor_parallel);
  serving::add_ranks(text, "--pp_size", settings.pipeline_parallel);
  serving::add_ranks(text, "--ep_size", settings.expert_parallel);
  return text;
}

serving::StagePlan stage_plan(const serving::StageRank& rank,
                              const EngineSettings& settings,
                              const serving::Parallel& parallel,
                              std::int64_t device_memory_bytes) {
  const serving::Step step{.tokens = settings.max_batched_tokens.value_or(kStepTokens),
                           .sequences = settings.max_sequences.value_or(kStepSequences)};
  const serving::PagingRules rules{
      .block_tokens = settings.block_tokens.value_or(kBlockTokens),
      .latent_block_tokens = settings.block_tokens.value_or(kBlockTokens),
      .engine = "tensorrt-llm"};
  serving::StagePlan plan = serving::begun_stage(rank, settings, parallel, rules);
  const Device device{0};
  plan.fixed.push_back(
      modelled_line(device, LedgerKind::compute, serving::activation_peak(rank, parallel, step)));
  serving::pay_from_spare(spare_of_free(plan.fixed, device_memory_bytes, settings),
                          plan.fixed,
                          {modelled_line(device, LedgerKind::graphs, serving::cuda_graphs())});
  return plan;
}

}  // namespace

std::unique_ptr<MemoryPlan> prepare_tensorrt_llm(const ModelSpec& model,
                                                 const EngineSettings& requested) {
  const EngineSettings settings = cache::with_native_scheme(model, requested);
  cache::require_applicable(model, requested.scheme);
  serving::require_schemes(model, "tensorrt-llm", {"full", "mla-latent", "cross-layer"});
  serving::require_serving_cache_type(settings, false);
  if (settings.data_parallel > 1) {
    throw Unsupported("--data-parallel", "tensorrt-llm: no rule for replicas is known", "use 1");
  }
  const auto rule = [&](const serving::StageRank& rank,
                        const serving::Parallel& parallel,
                        std::int64_t device_memory_bytes) {
    return stage_plan(rank, settings, parallel, device_memory_bytes);
  };
  return serving::serving_plan(model, settings, {}, rule, trtllm_command);
}

}  // namespace kvfathom
