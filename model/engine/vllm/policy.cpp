#include "model/engine/vllm/policy.h"

#include <string>
#include <utility>
#include <variant>

#include "model/cache/applicability.h"
#include "model/engine/serving/plan.h"
#include "model/engine/serving/profile.h"
#include "model/engine/vllm/behaviours.h"
#include "model/error.h"

namespace kvfathom {
namespace {

using serving::StagePlan;
using vllm::Behaviours;

constexpr double kDefaultUtilization = 0.9;
constexpr std::int64_t kGiB = std::int64_t{1} << 30;
constexpr std::int64_t kLargeDevice = 70 * kGiB;
constexpr std::int64_t kStepTokens = 2048;
constexpr std::int64_t kStepSequences = 256;

/// The server's defaults grow on large devices, but not on the A100 and not on machines whose
/// memory the driver does not report (arg_utils.py, default_max_num_batched_tokens).
bool is_large_device(const EngineSettings& settings) {
  const std::string& name = settings.device_name;
  const bool excepted = name.find("A100") != std::string::npos ||
                        name.find("A800") != std::string::npos ||
                        name.find("GB10") != std::string::npos;
  return settings.device_memory_bytes >= kLargeDevice && !excepted;
}

serving::Step largest_step(const EngineSettings& settings, const Behaviours& behaviours) {
  const bool large = is_large_device(settings);
  const std::int64_t most_tokens = behaviours.larger_steps ? 16384 : 8192;
  return {.tokens = settings.max_batched_tokens.value_or(large ? most_tokens : kStepTokens),
          .sequences = settings.max_sequences.value_or(large ? 1024 : kStepSequences),
          .drafts = settings.draft_tokens > 0 || settings.draft_model != nullptr};
}

template <class Test>
bool any_mixer(const ModelSpec& model, Test test) {
  for (const LayerSpec& layer : model.layers) {
    if (test(layer.mixer)) {
      return true;
    }
  }
  return false;
}

bool is_latent(const Mixer& mixer) {
  return std::holds_alternative<LatentAttention>(mixer);
}

bool is_sparse(const Mixer& mixer) {
  const auto* latent = std::get_if<LatentAttention>(&mixer);
  return latent != nullptr && latent->indexer.has_value();
}

bool is_recurrent(const Mixer& mixer) {
  return !std::holds_alternative<Attention>(mixer) && !is_latent(mixer) &&
         !std::holds_alternative<SharedAttention>(mixer) && !std::holds_alternative<NoMixer>(mixer);
}

void require_known(const ModelSpec& model,
                   const EngineSettings& settings,
                   const Behaviours& behaviours) {
  const auto refuse = [&](const char* what) {
    throw Unsupported(
        "--engine-version",
        std::string("vllm before it had ") + what + " is not understood for " + model.name,
        "use a newer version");
  };
  if (!behaviours.latent_cache && any_mixer(model, is_latent)) {
    refuse("a latent cache");
  }
  if (!behaviours.sparse_index && any_mixer(model, is_sparse)) {
    refuse("sparse attention");
  }
  if (!behaviours.state_pages && any_mixer(model, is_recurrent)) {
    refuse("pages of states");
  }
  if (!behaviours.shared_head && settings.draft_tokens > 0) {
    refuse("one head for model and prediction block");
  }
  if (!behaviours.draft_model && settings.draft_model) {
    refuse("draft models");
  }
  if (any_mixer(model, [](const Mixer& mixer) {
        return std::holds_alternative<Rwkv>(mixer) ||
               std::holds_alternative<KimiDeltaAttention>(mixer);
      })) {
    throw Unsupported(model.name, "vllm: no rule for the states of its recurrent layers", "");
  }
  const auto* gqa_index = "an indexer on grouped-query layers";
  if (any_mixer(model, [](const Mixer& mixer) {
        const auto* a = std::get_if<Attention>(&mixer);
        return a != nullptr && a->indexer.has_value();
      })) {
    throw Unsupported(model.name, std::string("vllm: no rule for ") + gqa_index, "");
  }
}

/// The option's JSON, quoted for a shell.
std::string speculative_config(std::string_view method,
                               std::string_view more_fields,
                               std::int64_t tokens) {
  return R"('{"method":")" + std::string(method) + "\"," + std::string(more_fields) +
         R"("num_speculative_tokens":)" + std::to_string(tokens) + "}'";
}

std::string vllm_command(const EngineSettings& settings,
                         std::int64_t context_tokens,
                         std::string_view model) {
  std::string text =
      "vllm serve " + std::string(model) + " --max-model-len " + std::to_string(context_tokens);
  serving::add_option(text, settings.online_fp8, "--quantization", "fp8");
  serving::add_count(text, "--max-num-seqs", settings.max_sequences);
  serving::add_count(text, "--max-num-batched-tokens", settings.max_batched_tokens);
  serving::add_share(text, "--gpu-memory-utilization", settings.gpu_memory_utilization);
  serving::add_count(text, "--block-size", settings.block_tokens);
  serving::add_ranks(text, "-tp", settings.tensor_parallel);
  serving::add_ranks(text, "-pp", settings.pipeline_parallel);
  serving::add_ranks(text, "-dp", settings.data_parallel);
  serving::add_option(text, settings.expert_parallel > 1, "--enable-expert-parallel", "");
  const DType type = settings.cache_type_k;
  serving::add_option(text, type == DType::f8_e4m3, "--kv-cache-dtype", "fp8");
  serving::add_option(text, type == DType::f8_e5m2, "--kv-cache-dtype", "fp8_e5m2");
  serving::add_option(text, type == DType::nvfp4, "--kv-cache-dtype", "nvfp4");
  serving::add_option(
      text, settings.scheme == CacheScheme::full, "--disable-hybrid-kv-cache-manager", "");
  serving::add_option(text,
                      settings.draft_tokens > 0,
                      "--speculative-config",
                      speculative_config("mtp", "", settings.draft_tokens));
  if (settings.draft_model) {
    const std::string model_field = R"("model":")" + settings.draft_model->name + "\",";
    constexpr std::int64_t kTokens = 5;  // the engine has no default; its documentation's example
    serving::add_option(text,
                        true,
                        "--speculative-config",
                        speculative_config("draft_model", model_field, kTokens));
  }
  return text;
}

/// How far counts of layers may be apart to share the larger as the size of their groups.
double near_equal(const Behaviours& behaviours) {
  constexpr double kNever = 1.0;
  return !behaviours.near_equal_groups ? kNever : behaviours.wider_near_equal ? 1.5 : 1.25;
}

StagePlan stage_plan(const serving::StageRank& rank,
                     const EngineSettings& settings,
                     const serving::Parallel& parallel,
                     std::int64_t device_memory_bytes,
                     const Behaviours& behaviours) {
  const serving::Step step = largest_step(settings, behaviours);
  constexpr std::int64_t kBlockTokens = 16;
  constexpr std::int64_t kLatentBlockTokens = 64;  // FlashMLA's
  const serving::PagingRules rules{
      .block_tokens = settings.block_tokens.value_or(kBlockTokens),
      .latent_block_tokens = settings.block_tokens.value_or(kLatentBlockTokens),
      .max_batched_tokens = step.tokens,
      .groups = behaviours.window_groups,
      .near_equal = near_equal(behaviours),
      .states = behaviours.cached_states ? 2 : 1,
      .draft_tokens = settings.draft_tokens,
      .engine = "vllm"};
  StagePlan plan = serving::begun_stage(rank, settings, parallel, rules);
  const Device device{0};
  plan.fixed.push_back(
      modelled_line(device, LedgerKind::compute, serving::activation_peak(rank, parallel, step)));
  const LedgerLine graphs = modelled_line(device, LedgerKind::graphs, serving::cuda_graphs());
  std::vector<LedgerLine> outside;
  if (behaviours.graphs_in_budget || device_memory_bytes == 0) {
    plan.fixed.push_back(graphs);
  } else {
    outside.push_back(graphs);
  }
  serving::pay_from_spare(
      serving::bytes_outside_share(device_memory_bytes, settings, kDefaultUtilization),
      plan.fixed,
      std::move(outside));
  return plan;
}

}  // namespace

std::optional<serving::SizeDefault> vllm_size_default(const EngineSettings& settings) {
  const bool asks_for_more = settings.sequences > kStepSequences * settings.data_parallel;
  if (!is_large_device(settings) || settings.max_batched_tokens || settings.max_sequences ||
      asks_for_more) {
    return std::nullopt;
  }
  const Behaviours behaviours = vllm::behaviours_without(settings.missing_behaviours);
  return serving::SizeDefault{.from_bytes = kLargeDevice,
                              .tokens = largest_step(settings, behaviours).tokens,
                              .tokens_below = kStepTokens,
                              .sequences_below = kStepSequences};
}

std::unique_ptr<MemoryPlan> prepare_vllm(const ModelSpec& model, const EngineSettings& requested) {
  const EngineSettings settings = cache::with_native_scheme(model, requested);
  const Behaviours behaviours = vllm::behaviours_without(settings.missing_behaviours);
  require_known(model, settings, behaviours);
  cache::require_applicable(model, requested.scheme);
  serving::require_serving_cache_type(settings, behaviours.nvfp4_cache);
  const std::int64_t most = largest_step(settings, behaviours).sequences;
  if (settings.sequences > most * settings.data_parallel) {
    throw InputError("--sequences",
                     std::to_string(settings.sequences) + " are more than the engine's " +
                         std::to_string(most) + " at a time",
                     "raise --max-sequences");
  }
  const auto rule = [&](const serving::StageRank& rank,
                        const serving::Parallel& parallel,
                        std::int64_t device_memory_bytes) {
    return stage_plan(rank, settings, parallel, device_memory_bytes, behaviours);
  };
  const serving::LoadRules loading{
      .marlin_mxfp4 = true, .prediction = serving::PredictionRule{}, .draft_model = true};
  return serving::serving_plan(model, settings, loading, rule, vllm_command);
}

}  // namespace kvfathom
