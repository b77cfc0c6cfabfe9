#include "cli/drafting.h"

#include <memory>
#include <string>
#include <utility>

#include "cli/format.h"
#include "cli/values.h"
#include "model/engine/llama_cpp/draft.h"
#include "model/engine/llama_cpp/prediction.h"
#include "model/error.h"

namespace kvfathom::cli {
namespace {

/// The draft of an engine that plans both models at once: it has no choices of its own.
void draft_on_the_ranks(const DraftOptions& options, DraftQuery draft, Query& query) {
  if (options.gpu_layers || options.cache_type_k || options.cache_type_v) {
    throw Unsupported(std::string(query.engine->name),
                      "no rule for a draft that is placed or typed apart from the model",
                      "give --draft alone");
  }
  const Provenance provenance = draft.model.foretold ? Provenance::modelled : Provenance::exact;
  query.settings.draft_model = std::make_shared<const DraftModel>(
      DraftModel{draft.model.spec,
                 provenance,
                 served_name(draft.model, *options.model, options.weights.has_value())});
  query.draft = std::move(draft);
}

/// The draft model and what it may choose for itself; nothing else of the line is without one.
void read_draft(const DraftOptions& options, Query& query) {
  if (!options.model) {
    if (options.weights || options.gpu_layers || options.cache_type_k || options.cache_type_v) {
      throw InputError("--draft", "missing beside the options of a draft", "give --draft MODEL");
    }
    return;
  }
  const bool served = loads_checkpoints(*query.engine);
  if (served && query.engine->name != "vllm") {
    throw Unsupported("--draft",
                      std::string(query.engine->name) + ": no rule for a draft model",
                      "use --engine llama.cpp, vllm or ideal");
  }
  DraftQuery draft;
  draft.model = read_model(*options.model, options.weights);
  if (draft.model.checkpoint && query.engine->name == "llama.cpp") {
    foretell_gguf(draft.model);
  }
  if (served) {
    draft_on_the_ranks(options, std::move(draft), query);
    return;
  }
  if (options.gpu_layers) {
    draft.choice.gpu_layers = parse_count("--draft-gpu-layers", *options.gpu_layers, 0, 1'000'000);
  }
  if (options.cache_type_k) {
    draft.choice.cache_type_k = parse_cache_type("--draft-cache-type-k", *options.cache_type_k);
  }
  if (options.cache_type_v) {
    draft.choice.cache_type_v = parse_cache_type("--draft-cache-type-v", *options.cache_type_v);
  }
  const llama_cpp::DraftChoice& types = draft.choice;
  require_cache_types(query, "--draft-cache-type-k", types.cache_type_k, types.cache_type_v);
  if (draft.model.foretold) {
    draft.choice.weights_provenance = Provenance::modelled;
  }
  llama_cpp::refuse_draft(query.model.spec, draft.model.spec, query.settings);
  query.draft = std::move(draft);
}

/// Tokens that the model's own prediction block drafts.
void read_prediction(const DraftOptions& options, Query& query) {
  if (!options.own_block) {
    return;
  }
  const std::string_view engine = query.engine->name;
  if (engine != "llama.cpp" && engine != "vllm" && engine != "sglang") {
    throw Unsupported("--mtp",
                      std::string(engine) + ": no rule for prediction blocks",
                      "use --engine llama.cpp, vllm or sglang");
  }
  constexpr std::int64_t kMostTokens = 64;
  query.settings.draft_tokens = parse_count("--mtp", *options.own_block, 1, kMostTokens);
  if (engine != "llama.cpp") {
    return;  // its policy refuses what it has no rule for
  }
  if (query.auto_context_tokens) {
    throw Unsupported("--mtp", "no rule for layers on several devices", "leave out --auto");
  }
  llama_cpp::refuse_prediction(query.model.spec, query.settings);
}

}  // namespace

void read_drafting(const DraftOptions& options, Query& query) {
  if (options.own_block && options.model) {
    throw InputError("--mtp", "given together with --draft", "give one of them");
  }
  read_draft(options, query);
  read_prediction(options, query);
}

Companion draft_companion(const Query& query,
                          const EngineInfo& engine,
                          const EngineSettings& settings) {
  const ModelSpec& draft = query.draft->model.spec;
  const EngineSettings of_draft = llama_cpp::draft_settings(settings, query.draft->choice);
  Companion companion;
  companion.plan = engine.prepare(draft, of_draft);
  if (engine.name == "llama.cpp") {
    companion.fixed = llama_cpp::drafted_rows(query.model.spec, draft, settings);
    companion.options = llama_cpp::draft_options(of_draft, shell_word(query.draft->model.file));
  }
  return companion;
}

Companion prediction_companion(const Query& query,
                               const EngineInfo& engine,
                               const EngineSettings& settings,
                               const MemoryPlan& model) {
  constexpr std::int64_t kAnyContext = 65'536;  // what is read of the ledgers hardly depends on it
  Companion companion;
  companion.plan = engine.prepare(llama_cpp::prediction_model(query.model.spec),
                                  llama_cpp::prediction_settings(settings));
  companion.fixed = llama_cpp::prediction_lines(query.model.spec,
                                                model.evaluate(kAnyContext).ledger,
                                                companion.plan->evaluate(kAnyContext).ledger,
                                                settings.draft_tokens);
  companion.options = llama_cpp::prediction_options(settings.draft_tokens);
  return companion;
}

}  // namespace kvfathom::cli
