#include "model/engine/serving/draft.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "model/engine/engine.h"
#include "model/error.h"

namespace kvfathom::serving {
namespace {

bool keeps_every_token(const LayerSpec& layer) {
  const auto* attention = std::get_if<Attention>(&layer.mixer);
  return attention != nullptr && !attention->window_tokens && !attention->indexer;
}

}  // namespace

void add_draft_model(const ModelSpec& model,
                     const EngineSettings& settings,
                     const Parallel& parallel,
                     const LoadRules& rules,
                     std::vector<StageRank>& ranks) {
  const DraftModel& draft = *settings.draft_model;
  if (!rules.draft_model) {
    throw Unsupported("--draft", "this engine: no rule for a draft model", "leave it out");
  }
  if (ranks.size() > 1) {
    throw Unsupported(
        "--draft", "no rule for a draft model beside pipeline stages", "--pipeline-parallel 1");
  }
  for (const ModelSpec* const one : {&model, &draft.model}) {
    if (!std::ranges::all_of(one->layers, keeps_every_token)) {
      throw Unsupported(one->name,
                        "no rule for one pool of a draft model's layers and windows, latents or "
                        "states",
                        "leave out --draft");
    }
  }
  if (draft.model.vocab_size != model.vocab_size) {
    throw InputError("--draft",
                     std::to_string(draft.model.vocab_size) + " tokens beside the model's " +
                         std::to_string(model.vocab_size),
                     "a model with the same vocabulary");
  }
  EngineSettings of_draft = settings;
  of_draft.weights_provenance = draft.weights_provenance;
  const StageRank loaded = std::move(stage_ranks(draft.model, of_draft, parallel, rules).front());
  StageRank& rank = ranks.front();
  rank.draft = weights_line(Device{0}, loaded.weights_bytes, of_draft);
  rank.draft->kind = LedgerKind::draft;
  rank.model.layers.insert(
      rank.model.layers.end(), loaded.model.layers.begin(), loaded.model.layers.end());
}

}  // namespace kvfathom::serving
