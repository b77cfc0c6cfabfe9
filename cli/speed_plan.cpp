#include "cli/speed_plan.h"

#include <algorithm>

#include "cli/device_shares.h"
#include "model/crossover/crossover.h"
#include "model/engine/llama_cpp/draft.h"
#include "model/engine/llama_cpp/placement.h"
#include "model/engine/llama_cpp/weights.h"
#include "model/error.h"
#include "model/rounding.h"

namespace kvfathom::cli {
namespace {

constexpr std::int64_t kUbatchTokens = 512;      // llama.cpp n_ubatch
constexpr std::int64_t kStepTokens = 2048;       // of engines that name none
constexpr std::int64_t kLargeStepTokens = 8192;  // vLLM's default on GPUs of 70 GiB and more
constexpr std::int64_t kLargeMemoryBytes = std::int64_t{70} << 30;

bool is_llama_cpp(const Query& query) {
  return query.engine->name == "llama.cpp";
}

/// What llama.cpp leaves on the host by these settings, where some of it runs on GPUs.
IsOnHost on_host_by(const ModelSpec& model, const EngineSettings& settings) {
  if (settings.n_gpus == 0 || !llama_cpp::is_spread(settings)) {
    return {};
  }
  return
      [places = llama_cpp::layer_places(model, model.tensors, llama_cpp::split_of(settings))](
          std::string_view tensor) { return llama_cpp::place_of(places, tensor) == Device::kHost; };
}

/// The draft model with the cache that it has of its own, or the prediction block with the model's.
std::unique_ptr<StepOps> draft_steps(const Query& query, const CacheCase& cache_case) {
  LatencySettings settings = latency_settings(query, cache_case);
  settings.pipeline_parallel = 1;
  settings.is_on_host = {};
  if (!query.draft) {
    return std::make_unique<StepOps>(prediction_block(query.model.spec), settings);
  }
  settings.scheme = {};
  settings.offload.reset();
  if (is_llama_cpp(query)) {
    settings.cache_type_k = query.draft->choice.cache_type_k;
    settings.cache_type_v = query.draft->choice.cache_type_v;
    settings.is_on_host = on_host_by(
        query.draft->model.spec, llama_cpp::draft_settings(query.settings, query.draft->choice));
  }
  return std::make_unique<StepOps>(query.draft->model.spec, settings);
}

}  // namespace

std::int64_t chunk_tokens(const Query& query) {
  const EngineSettings& s = query.settings;
  if (is_llama_cpp(query)) {
    return s.ubatch_tokens.value_or(kUbatchTokens);
  }
  const bool large = s.device_memory_bytes >= kLargeMemoryBytes;
  return s.max_batched_tokens.value_or(large ? kLargeStepTokens : kStepTokens);
}

LatencySettings latency_settings(const Query& query, const CacheCase& cache_case) {
  const EngineSettings& s = query.settings;
  LatencySettings settings{.scheme = request_of(cache_case),
                           .offload = cache_case.offload,
                           .cache_type_k = cache_case.k,
                           .cache_type_v = cache_case.v,
                           .tensor_parallel = s.tensor_parallel,
                           .pipeline_parallel = s.pipeline_parallel,
                           .expert_parallel = s.expert_parallel,
                           .data_parallel = s.data_parallel,
                           .absorbed_prefill = is_llama_cpp(query)};
  if (is_llama_cpp(query)) {
    settings.is_on_host = on_host_by(query.model.spec, s);
    settings.brought_from_tokens = kOffloadTokens;
  }
  if (is_llama_cpp(query) && query.machine.n_gpus > 1) {
    settings.pipeline_parallel = query.machine.n_gpus;  // layers are split
  } else if (is_formula(*query.engine) && query.machine.n_gpus > 1) {
    settings.pipeline_parallel =
        std::max<std::int64_t>(1, query.machine.n_gpus / s.tensor_parallel);
  }
  return settings;
}

SpeedPlan::SpeedPlan(const Query& query,
                     const CacheCase& cache_case,
                     const std::optional<Speculation>& speculation)
    : decode_laws_(laws_of(query, Phase::decode)),
      speculation_(speculation),
      n_gpus_(std::max(1, query.machine.n_gpus)),
      replicas_(query.settings.data_parallel) {
  steps_ = std::make_unique<StepOps>(query.model.spec, latency_settings(query, cache_case));
  decode_ = std::make_unique<Generation>(*steps_, *decode_laws_, chunk_tokens(query));
  if (knows_peak_rates(query)) {
    prompt_laws_ = laws_of(query, Phase::prefill);
    prompt_ = std::make_unique<Generation>(*steps_, *prompt_laws_, chunk_tokens(query));
  }
  if (speculation_) {
    draft_steps_ = draft_steps(query, cache_case);
    draft_ = std::make_unique<Generation>(*draft_steps_, *decode_laws_, chunk_tokens(query));
  }
}

StepTime SpeedPlan::prompt(std::int64_t context_tokens, bool details) {
  StepTime time = prompt_->prompt(context_tokens, 0, 1, details);
  ops_ = details ? prompt_->ops() : ops_;
  return time;
}

StepTime SpeedPlan::decode(std::int64_t context_tokens, std::int64_t sequences, bool details) {
  const std::int64_t of_replica = divide_up(sequences, replicas_);
  const std::int64_t n_drafts = speculation_ ? speculation_->n_draft_tokens : 0;
  StepTime step = decode_->decode(context_tokens - 1, of_replica, details, n_drafts + 1);
  ops_ = details ? decode_->ops() : ops_;
  if (!speculation_) {
    return step;
  }
  const Estimate draft = draft_->decode(context_tokens - 1, of_replica).time_s;
  const auto n = static_cast<double>(n_drafts);
  step.time_s.value += n * draft.value;
  step.time_s.low += n * draft.low;
  step.time_s.high += n * draft.high;
  step.time_s.provenance = worst(step.time_s.provenance, draft.provenance);
  return step;
}

double SpeedPlan::tokens_per_step() const {
  return speculation_ ? expected_tokens(speculation_->acceptance, speculation_->n_draft_tokens)
                      : 1.0;
}

std::vector<Span> pays_at(SpeedPlan& one,
                          SpeedPlan& other,
                          std::int64_t sequences,
                          std::int64_t limit_tokens) {
  const auto step_s = [&](SpeedPlan& plan) {
    return [&plan, sequences](std::int64_t tokens) {
      return plan.decode(tokens, sequences, false).time_s.value;
    };
  };
  // The first wins a tie: it is `other`.
  std::vector<Span> spans;
  for (const Reign& reign : reigns(step_s(other), step_s(one), limit_tokens)) {
    if (!reign.fetch) {
      spans.push_back({reign.from_tokens, std::nullopt});
    } else if (!spans.empty()) {
      spans.back().to_tokens = reign.from_tokens - 1;
    }
  }
  return spans;
}

std::optional<std::int64_t> pays_from(const std::vector<Span>& spans) {
  if (spans.empty() || spans.back().to_tokens) {
    return std::nullopt;
  }
  return spans.back().from_tokens == 1 ? 0 : spans.back().from_tokens;
}

std::string SpeedPlan::laws_sentence() const {
  std::vector<PricedClass> classes(decode_->pricer().classes().begin(),
                                   decode_->pricer().classes().end());
  for (const auto* other : {&prompt_, &draft_}) {
    if (*other != nullptr) {
      const auto more = (*other)->pricer().classes();
      classes.insert(classes.end(), more.begin(), more.end());
    }
  }
  std::vector<std::string_view> origins;
  for (const PricedClass& one : classes) {
    if (std::ranges::find(origins, one.origin) == origins.end()) {
      origins.push_back(one.origin);
    }
  }
  std::string text;
  for (const std::string_view origin : origins) {
    std::vector<std::string_view> kinds;
    for (const PricedClass& one : classes) {
      const std::string_view kind = name(one.op_class.kind);
      if (one.origin == origin && std::ranges::find(kinds, kind) == kinds.end()) {
        kinds.push_back(kind);
      }
    }
    text += (text.empty() ? "Times: " : "; ") + std::string(origin);
    if (origins.size() > 1) {
      for (std::size_t i = 0; i < kinds.size(); ++i) {
        text += (i == 0 ? " (" : ", ") + std::string(kinds[i]);
      }
      text += ")";
    }
  }
  return text + ".";
}

}  // namespace kvfathom::cli
