#include "model/engine/llama_cpp/draft.h"

#include <algorithm>
#include <cstdlib>
#include <variant>

#include "model/engine/llama_cpp/behaviours.h"
#include "model/error.h"

namespace kvfathom::llama_cpp {
namespace {

constexpr std::int64_t kVocabularyDifference = 128;  // SPEC_VOCAB_MAX_SIZE_DIFFERENCE
constexpr std::int64_t kDraftedTokens = 16;
constexpr std::int64_t kLogitBytes = 4;

bool keeps_a_state(const LayerSpec& layer) {
  return !std::holds_alternative<Attention>(layer.mixer) &&
         !std::holds_alternative<LatentAttention>(layer.mixer) &&
         !std::holds_alternative<SharedAttention>(layer.mixer) &&
         !std::holds_alternative<NoMixer>(layer.mixer);
}

}  // namespace

void refuse_draft(const ModelSpec& model, const ModelSpec& draft, const EngineSettings& settings) {
  if (!allocates_as_today(settings.missing_behaviours)) {
    throw Unsupported("--draft",
                      "llama.cpp " + settings.engine_version + " made a draft's context otherwise",
                      "leave out --engine-version");
  }
  for (const ModelSpec* const one : {&model, &draft}) {
    if (std::ranges::any_of(one->layers, keeps_a_state)) {
      throw Unsupported(one->name,
                        "no rule for the copies of its recurrent state that drafting keeps",
                        "leave out --draft");
    }
  }
  if (std::abs(model.vocab_size - draft.vocab_size) > kVocabularyDifference) {
    throw InputError("--draft",
                     std::to_string(draft.vocab_size) + " tokens beside the model's " +
                         std::to_string(model.vocab_size),
                     "a model with the same vocabulary");
  }
}

EngineSettings draft_settings(const EngineSettings& settings, const DraftChoice& choice) {
  EngineSettings draft = settings;
  draft.scheme = CacheScheme::native;
  draft.scheme_parameters = {};
  draft.offload = std::nullopt;
  draft.cache_type_k = choice.cache_type_k;
  draft.cache_type_v = choice.cache_type_v;
  draft.gpu_layers = choice.gpu_layers;
  draft.cpu_moe_layers = 0;
  draft.moved_layers.clear();
  draft.weights_provenance = choice.weights_provenance;
  return draft;
}

std::vector<LedgerLine> drafted_rows(const ModelSpec& model,
                                     const ModelSpec& draft,
                                     const EngineSettings& settings) {
  const std::int64_t most_bytes =
      kDraftedTokens * settings.sequences * kLogitBytes * (model.vocab_size + draft.vocab_size);
  const auto at_most = [&](int device) {
    return LedgerLine{{device}, LedgerKind::draft, 0, Provenance::modelled, 0, most_bytes};
  };
  std::vector<LedgerLine> lines{at_most(Device::kHost)};
  for (int gpu = 0; gpu < settings.n_gpus; ++gpu) {  // wherever the two output heads are
    lines.push_back(at_most(gpu));
  }
  return lines;
}

std::string draft_options(const EngineSettings& draft, std::string_view file) {
  std::string text = " -md " + std::string(file);
  if (draft.n_gpus > 0) {
    text += " -ngld " + std::to_string(draft.gpu_layers.value_or(999));
  } else {
    text += " --device-draft none";
  }
  const auto add_type = [&](DType type, const char* option) {
    text += type == DType::f16 ? "" : option + std::string(name(type));
  };
  add_type(draft.cache_type_k, " -ctkd ");
  add_type(draft.cache_type_v, " -ctvd ");
  return text;
}

}  // namespace kvfathom::llama_cpp
