#include "model/engine/sglang/policy.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "model/cache/scheme.h"
#include "model/engine/serving/plan.h"
#include "model/engine/serving/profile.h"

namespace kvfathom {
namespace {

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

/// Chunk of prefill and largest batch in a CUDA graph, by device memory.
struct DeviceClass {
  std::int64_t below_mib;
  std::int64_t chunk_tokens;
  std::int64_t graph_batch;       ///< below four ranks
  std::int64_t wide_graph_batch;  ///< four ranks and more
};

constexpr std::int64_t kMiBPerGiB = 1024;
constexpr DeviceClass kClasses[] = {{20 * kMiBPerGiB, 2048, 8, 8},
                                    {35 * kMiBPerGiB, 2048, 24, 80},
                                    {60 * kMiBPerGiB, 4096, 32, 160},
                                    {90 * kMiBPerGiB, 8192, 256, 512},
                                    {0, 16384, 512, 512}};

const DeviceClass& class_of(std::int64_t device_memory_bytes) {
  const std::int64_t mib = device_memory_bytes / kMiB;
  const auto* row = std::ranges::find_if(
      kClasses, [&](const DeviceClass& c) { return c.below_mib == 0 || mib < c.below_mib; });
  return *row;
}

double share_of(const EngineSettings& settings) {
  return serving::share_of_device(
      settings,
      sglang_default_share(
          settings.device_memory_bytes, settings.tensor_parallel, settings.pipeline_parallel));
}

std::string sglang_command(const EngineSettings& settings,
                           std::int64_t context_tokens,
                           std::string_view model) {
  std::string text = "python3 -m sglang.launch_server --model-path " + std::string(model) +
                     " --context-length " + std::to_string(context_tokens);
  serving::add_share(text, "--mem-fraction-static", settings.gpu_memory_utilization);
  serving::add_count(text, "--chunked-prefill-size", settings.max_batched_tokens);
  serving::add_count(text, "--max-running-requests", settings.max_sequences);
  serving::add_count(text, "--page-size", settings.block_tokens);
  serving::add_ranks(text, "--tp", settings.tensor_parallel);
  serving::add_ranks(text, "--pp", settings.pipeline_parallel);
  serving::add_ranks(text, "--dp", settings.data_parallel);
  serving::add_ranks(text, "--ep", settings.expert_parallel);
  const DType type = settings.cache_type_k;
  serving::add_option(text, type == DType::f8_e4m3, "--kv-cache-dtype", "fp8_e4m3");
  serving::add_option(text, type == DType::f8_e5m2, "--kv-cache-dtype", "fp8_e5m2");
  return text;
}

serving::StagePlan stage_plan(const serving::StageRank& rank,
                              const EngineSettings& settings,
                              const serving::Parallel& parallel) {
  const DeviceClass& device_class = class_of(settings.device_memory_bytes);
  const serving::Step step{
      .tokens = settings.max_batched_tokens.value_or(device_class.chunk_tokens),
      .sequences = settings.max_sequences.value_or(device_class.graph_batch)};
  const std::int64_t page = settings.block_tokens.value_or(1);
  // Slot 0 takes the writes of padded batches: one page more than the pool's size is allocated.
  const serving::PagingRules rules{
      .block_tokens = page, .latent_block_tokens = page, .spare_blocks = 1, .engine = "sglang"};
  serving::StagePlan plan;
  plan.cache = serving::paged_cache(rank.model, settings, rules);
  const Device device{0};
  plan.fixed = serving::loaded_lines(rank, settings);
  plan.fixed.push_back(
      modelled_line(device, LedgerKind::runtime, serving::runtime_memory(parallel)));
  const auto budget = static_cast<std::int64_t>(
      std::floor(static_cast<double>(settings.device_memory_bytes) * share_of(settings)));
  serving::pay_from_spare(
      settings.device_memory_bytes - budget,
      plan.fixed,
      {modelled_line(device, LedgerKind::compute, serving::activation_peak(rank, parallel, step)),
       modelled_line(device, LedgerKind::graphs, serving::cuda_graphs())});
  return plan;
}

}  // namespace

double sglang_default_share(std::int64_t device_memory_bytes,
                            std::int64_t tensor_parallel,
                            std::int64_t pipeline_parallel) {
  const DeviceClass& device_class = class_of(device_memory_bytes);
  const auto device_mib =
      std::floor(static_cast<double>(device_memory_bytes) / static_cast<double>(kMiB));
  const std::int64_t batch =
      tensor_parallel < 4 ? device_class.graph_batch : device_class.wide_graph_batch;
  constexpr double kMetadataMiB = 512;
  constexpr double kMiBPerChunkToken = 1.5;
  constexpr double kMiBPerGraphSequence = 2;
  constexpr double kMiBPerEightRanks = 1024;
  const double kept_mib =
      kMetadataMiB + kMiBPerChunkToken * static_cast<double>(device_class.chunk_tokens) +
      kMiBPerGraphSequence * static_cast<double>(batch) +
      kMiBPerEightRanks * static_cast<double>(tensor_parallel * pipeline_parallel) / 8;
  if (device_mib <= 0) {
    return 1.0;
  }
  constexpr double kThousandths = 1000;
  const double share = (device_mib - kept_mib) / device_mib;
  return std::clamp(std::round(share * kThousandths) / kThousandths, 0.0, 1.0);
}

std::unique_ptr<MemoryPlan> prepare_sglang(const ModelSpec& model, const EngineSettings& settings) {
  cache::require_applicable(model, settings.scheme);
  serving::require_schemes(model, "sglang", {"full", "mla-latent", "sparse-index", "cross-layer"});
  serving::require_serving_cache_type(settings, false);
  const auto rule = [&](const serving::StageRank& rank, const serving::Parallel& parallel) {
    return stage_plan(rank, settings, parallel);
  };
  return serving::serving_plan(model, settings, {}, rule, sglang_command);
}

}  // namespace kvfathom
