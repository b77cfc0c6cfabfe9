#include "model/engine/sglang/policy.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <string>
#include <variant>
#include <vector>

#include "model/cache/applicability.h"
#include "model/engine/serving/plan.h"
#include "model/engine/serving/profile.h"
#include "model/error.h"
#include "model/rounding.h"

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

/// Whose windows have a pool of their own: python/sglang/srt/configs/model_config.py,
/// is_hybrid_swa_model (001adf56). Llama 4's chunks are on the list too, without a rule here.
constexpr std::array<std::string_view, 5> kWindowPools{
    "gemma4", "gpt-oss", "laguna", "mimo2", "step35"};

bool has_window_pool(const ModelSpec& model) {
  return std::ranges::find(kWindowPools, model.architecture) != kWindowPools.end();
}

/// Sizes: python/sglang/srt/model_executor/pool_configurator.py (003fca80). The pool has
/// --swa-full-tokens-ratio tokens per token of the full one, and must exceed the window and a page.
/// A request holds, beside its window, what eviction has not reached (every 128 steps,
/// SGLANG_SWA_EVICTION_INTERVAL), a page of alignment and the page it writes; prompts have two
/// chunks in flight, and a page.
serving::WindowPool window_pool(std::int64_t window_tokens,
                                std::int64_t page,
                                std::int64_t chunk_tokens) {
  constexpr double kSwaFullTokensRatio = 0.8;
  constexpr std::int64_t kEvictionInterval = 128;
  return {.share = kSwaFullTokensRatio,
          .beyond_window = kEvictionInterval + 2 * page,
          .in_flight_tokens = 2 * chunk_tokens + page,
          .least_tokens = window_tokens + page + 1};
}

std::int64_t widest_window(const ModelSpec& model) {
  std::int64_t tokens = 0;
  for (const LayerSpec& layer : model.layers) {
    const auto* attention = std::get_if<Attention>(&layer.mixer);
    tokens = std::max(tokens, attention == nullptr ? 0 : attention->window_tokens.value_or(0));
  }
  return tokens;
}

/// K and V of one token of one layer in elements: the engine counts one width for all layers of a
/// pool (pool_configurator.py, DefaultPoolConfigurator).
bool has_one_width(const ModelSpec& model) {
  std::int64_t width = 0;
  return std::ranges::all_of(model.layers, [&](const LayerSpec& layer) {
    const auto* a = std::get_if<Attention>(&layer.mixer);
    const std::int64_t own = a == nullptr ? 0 : a->n_kv_heads * (a->head_dim + a->v_head_dim);
    width = width == 0 ? own : width;
    return own == width;
  });
}

/// States that the engine has a slot pool for: HybridReqToTokenPool and MambaPool
/// (srt/mem_cache/memory_pool.py) with the shapes of Mamba2CacheParams and KimiLinearCacheParams.
bool has_slots(const Mixer& mixer) {
  return std::holds_alternative<Mamba2>(mixer) || std::holds_alternative<GatedDeltaNet>(mixer) ||
         std::holds_alternative<KimiDeltaAttention>(mixer) ||
         std::holds_alternative<ParallelMixers>(mixer);
}

bool has_states(const ModelSpec& model) {
  return std::ranges::any_of(model.layers,
                             [](const LayerSpec& layer) { return has_slots(layer.mixer); });
}

std::int64_t conv_window_of(const Mixer& mixer) {
  if (const auto* mamba = std::get_if<Mamba2>(&mixer)) {
    return mamba->d_conv - 1;
  }
  if (const auto* delta = std::get_if<GatedDeltaNet>(&mixer)) {
    return delta->d_conv - 1;
  }
  if (const auto* kimi = std::get_if<KimiDeltaAttention>(&mixer)) {
    return kimi->d_conv - 1;
  }
  const auto* both = std::get_if<ParallelMixers>(&mixer);
  return both != nullptr ? both->mamba2.d_conv - 1 : 0;
}

/// A running request takes three slots (its state, and those of the prefixes that it keeps), and
/// two more under the strategy that overlaps scheduling, which newer versions choose
/// (kv_cache_configurator.py, _calculate_mamba_ratio; without a radix cache it takes one). The pool
/// is one slot larger than asked for. So many are asked for by --max-mamba-cache-size; left alone,
/// the engine gives states 0.9 / 1.9 of what is free (--mamba-full-memory-ratio).
constexpr std::int64_t kSlotsPerRequest = 5;

/// Each drafted token and the one behind them has a state too while it is verified, for as many
/// requests as run and one more; their convolutions share one history, which
/// older versions kept for each token (memory_pool.py, MambaPool).
serving::StatePool state_pool(const ModelSpec& model, const EngineSettings& settings) {
  serving::StatePool pool{.slots_per_sequence = kSlotsPerRequest, .spare_slots = 1};
  pool.verified_tokens = settings.draft_tokens > 0 ? settings.draft_tokens + 1 : 0;
  for (const LayerSpec& layer : model.layers) {
    pool.conv_window = std::max(pool.conv_window, conv_window_of(layer.mixer));
  }
  return pool;
}

void require_known_states(const ModelSpec& model, const EngineSettings& settings) {
  const auto refuse = [&](const std::string& what) {
    throw Unsupported(model.name, "sglang: no rule for " + what, "");
  };
  for (const LayerSpec& layer : model.layers) {
    for (const cache::Scheme& scheme : cache::schemes_of(layer.mixer, CacheScheme::native)) {
      if (cache::name(scheme) == "state" && !has_slots(layer.mixer)) {
        refuse("the pool of its state layers");
      }
    }
  }
  if (has_states(model) && settings.pipeline_parallel > 1) {
    refuse("a pool of states in pipeline stages");
  }
}

void require_known_windows(const ModelSpec& model, const EngineSettings& settings) {
  if (widest_window(model) == 0) {
    return;
  }
  const auto refuse = [&](const char* what) {
    throw Unsupported(model.name, std::string("sglang: no rule for ") + what, "");
  };
  for (const LayerSpec& layer : model.layers) {
    const auto* a = std::get_if<Attention>(&layer.mixer);
    if (a != nullptr && a->window_tokens && a->window_kind == WindowKind::chunked) {
      refuse("the pool of its chunked window layers");
    }
    if (a == nullptr) {
      refuse("windows beside layers that share a cache");
    }
  }
  if (has_window_pool(model) && settings.pipeline_parallel > 1) {
    refuse("a window's pool in pipeline stages");
  }
  if (!has_window_pool(model) && !has_one_width(model)) {
    refuse("windows of another width than its full layers'");
  }
}

/// The engine refuses ranks of which one has less than 0.9 of another's memory, and gives every
/// stage the least that is left on any device, its weights included (get_available_gpu_memory over
/// the world: srt/mem_cache/kv_cache_configurator.py, 003fca80).
void require_even_devices(const EngineSettings& settings) {
  const std::vector<std::int64_t>& memory = settings.uneven_device_memory_bytes;
  if (memory.empty()) {
    return;
  }
  if (settings.pipeline_parallel > 1) {
    throw Unsupported("--pipeline-parallel",
                      "sglang: no rule for stages on devices of different size",
                      "use equal devices");
  }
  constexpr double kLeastShare = 0.9;
  const auto [least, most] = std::ranges::minmax(memory);
  if (settings.tensor_parallel > 1 &&
      static_cast<double>(least) < kLeastShare * static_cast<double>(most)) {
    throw InputError("--tensor-parallel",
                     "the memory of the devices is unbalanced",
                     "sglang takes ranks within a tenth of each other");
  }
}

double default_share(const EngineSettings& settings) {
  const double share = sglang_default_share(settings.device_memory_bytes,
                                            settings.tensor_parallel,
                                            settings.pipeline_parallel,
                                            settings.max_batched_tokens);
  if (share <= 0.0 && !settings.gpu_memory_utilization) {
    throw InputError("--gpu-memory-utilization",
                     "sglang's own share of a device of " +
                         std::to_string(settings.device_memory_bytes / kMiB) + " MiB is nothing",
                     "give one, or a larger device");
  }
  return share;
}

std::string sglang_command(const EngineSettings& settings,
                           std::int64_t context_tokens,
                           std::string_view model) {
  std::string text = "python3 -m sglang.launch_server --model-path " + std::string(model) +
                     " --context-length " + std::to_string(context_tokens);
  serving::add_option(text, settings.online_fp8, "--quantization", "fp8");
  serving::add_share(text, "--mem-fraction-static", settings.gpu_memory_utilization);
  serving::add_count(text, "--chunked-prefill-size", settings.max_batched_tokens);
  serving::add_count(text, "--max-running-requests", settings.max_sequences);
  serving::add_count(text, "--page-size", settings.block_tokens);
  serving::add_ranks(text, "--tp", settings.tensor_parallel);
  serving::add_ranks(text, "--pp", settings.pipeline_parallel);
  serving::add_ranks(text, "--dp", settings.data_parallel);
  serving::add_ranks(text, "--ep", settings.expert_parallel);
  serving::add_option(
      text, settings.scheme == CacheScheme::full, "--disable-hybrid-swa-memory", "");
  if (settings.draft_tokens > 0) {
    text += " --speculative-algorithm NEXTN --speculative-num-steps " +
            std::to_string(settings.draft_tokens) +
            " --speculative-eagle-topk 1 --speculative-num-draft-tokens " +
            std::to_string(settings.draft_tokens + 1);
  }
  const DType type = settings.cache_type_k;
  serving::add_option(text, type == DType::f8_e4m3, "--kv-cache-dtype", "fp8_e4m3");
  serving::add_option(text, type == DType::f8_e5m2, "--kv-cache-dtype", "fp8_e5m2");
  return text;
}

/// A request that decodes reserves twice what a step may write: the drafted tokens and one behind
/// them (python/sglang/srt/mem_cache/allocation_sizing.py, 027bddfa, of a draft without branches).
std::int64_t ahead_tokens(const EngineSettings& settings) {
  return settings.draft_tokens > 0 ? 2 * (settings.draft_tokens + 1) : 0;
}

std::string hybrid_command(const EngineSettings& settings,
                           std::int64_t context_tokens,
                           std::string_view model) {
  std::string text = sglang_command(settings, context_tokens, model);
  const std::int64_t sequences = divide_up(settings.sequences, settings.data_parallel);
  serving::add_count(text, "--max-mamba-cache-size", sequences * kSlotsPerRequest);
  if (settings.draft_tokens > 0 && !settings.max_sequences) {
    serving::add_count(text, "--max-running-requests", settings.sequences);  // else 48
  }
  return text;
}

serving::StagePlan stage_plan(const serving::StageRank& rank,
                              const EngineSettings& settings,
                              const serving::Parallel& parallel,
                              std::int64_t device_memory_bytes) {
  const DeviceClass& device_class = class_of(settings.device_memory_bytes);
  const serving::Step step{
      .tokens = settings.max_batched_tokens.value_or(device_class.chunk_tokens),
      .sequences = settings.max_sequences.value_or(device_class.graph_batch)};
  const std::int64_t page = settings.block_tokens.value_or(1);
  // Slot 0 takes the writes of padded batches: one page more than the pool's size is allocated.
  serving::PagingRules rules{.block_tokens = page,
                             .latent_block_tokens = page,
                             .groups = has_window_pool(rank.model),
                             .spare_blocks = 1,
                             .ahead_tokens = ahead_tokens(settings),
                             .engine = "sglang"};
  if (rules.groups) {
    rules.window_pool = window_pool(widest_window(rank.model), page, step.tokens);
  }
  if (has_states(rank.model)) {
    rules.state_pool = state_pool(rank.model, settings);
  }
  serving::StagePlan plan = serving::begun_stage(rank, settings, parallel, rules);
  const Device device{0};
  serving::pay_from_spare(
      serving::bytes_outside_share(device_memory_bytes, settings, default_share(settings)),
      plan.fixed,
      {modelled_line(device, LedgerKind::compute, serving::activation_peak(rank, parallel, step)),
       modelled_line(device, LedgerKind::graphs, serving::cuda_graphs())});
  return plan;
}

}  // namespace

double sglang_default_share(std::int64_t device_memory_bytes,
                            std::int64_t tensor_parallel,
                            std::int64_t pipeline_parallel,
                            std::optional<std::int64_t> chunk_tokens) {
  const DeviceClass& device_class = class_of(device_memory_bytes);
  const auto device_mib =
      std::floor(static_cast<double>(device_memory_bytes) / static_cast<double>(kMiB));
  const std::int64_t batch =
      tensor_parallel < 4 ? device_class.graph_batch : device_class.wide_graph_batch;
  constexpr std::int64_t kLeastChunk = 2048;
  const std::int64_t chunk =
      std::max(kLeastChunk, chunk_tokens.value_or(device_class.chunk_tokens));
  constexpr double kMetadataMiB = 512;
  constexpr double kMiBPerChunkToken = 1.5;
  constexpr double kMiBPerGraphSequence = 2;
  constexpr double kMiBPerEightRanks = 1024;
  const double kept_mib =
      kMetadataMiB + kMiBPerChunkToken * static_cast<double>(chunk) +
      kMiBPerGraphSequence * static_cast<double>(batch) +
      kMiBPerEightRanks * static_cast<double>(tensor_parallel * pipeline_parallel) / 8;
  if (device_mib <= 0) {
    return 1.0;
  }
  constexpr double kThousandths = 1000;
  const double share = (device_mib - kept_mib) / device_mib;
  return std::clamp(std::round(share * kThousandths) / kThousandths, 0.0, 1.0);
}

std::optional<serving::SizeDefault> sglang_size_default(const EngineSettings& settings) {
  const DeviceClass* own = &class_of(settings.device_memory_bytes);
  if (own == std::begin(kClasses) || settings.max_batched_tokens) {
    return std::nullopt;
  }
  const DeviceClass* below = own - 1;
  if (below->chunk_tokens == own->chunk_tokens) {
    return std::nullopt;
  }
  return serving::SizeDefault{.from_bytes = below->below_mib * kMiB,
                              .tokens = own->chunk_tokens,
                              .tokens_below = below->chunk_tokens};
}

std::unique_ptr<MemoryPlan> prepare_sglang(const ModelSpec& model,
                                           const EngineSettings& requested) {
  const EngineSettings settings = cache::with_native_scheme(model, requested);
  cache::require_applicable(model, requested.scheme);
  serving::require_schemes(
      model, "sglang", {"full", "window", "mla-latent", "sparse-index", "cross-layer", "state"});
  require_known_states(model, settings);
  require_known_windows(model, settings);
  require_even_devices(settings);
  serving::require_serving_cache_type(settings, false);
  const auto rule = [&](const serving::StageRank& rank,
                        const serving::Parallel& parallel,
                        std::int64_t device_memory_bytes) {
    return stage_plan(rank, settings, parallel, device_memory_bytes);
  };
  const bool hybrid = has_states(model);
  // The pool has as many tokens for the block's layer as for the others, since #23862 of its
  // repository (spring 2026). When it is sized, the block has an embedding and a head of its own
  // still, which are never read and released soon after (sgl-project/sglang issue 36452).
  const serving::LoadRules loading{
      .prediction = serving::PredictionRule{.vocabulary_copies = 2, .longer_convolutions = false}};
  return serving::serving_plan(
      model, settings, loading, rule, hybrid ? hybrid_command : sglang_command);
}

}  // namespace kvfathom
