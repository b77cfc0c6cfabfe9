#include "cli/headline.h"

#include <algorithm>

#include "cli/format.h"
#include "model/architecture/parameters.h"
#include "model/cache/groups.h"

namespace kvfathom::cli {
namespace {

std::string stored_by(const cache::LayerGroup& group) {
  const cache::CacheLayout& layout = group.layout;
  const std::string_view scheme = cache::name(group.scheme);
  if (layout.state_elements + layout.conv_elements > 0) {
    return counted(group.n_layers, "layer") + (group.n_layers == 1 ? " keeps" : " keep") +
           " a state of " + thousands(layout.state_elements + layout.conv_elements) +
           " values per sequence";
  }
  std::string text = counted(group.n_layers, "layer") + " x ";
  const std::int64_t packed_bits = layout.k_packed_bits + layout.v_packed_bits;
  if (layout.k_row_elements + layout.v_row_elements == 0) {
    text += thousands((packed_bits + 7) / 8) + " B";
  } else if (scheme == "mla-latent") {
    text += thousands(layout.k_row_elements) + " values, V is a view of K";
  } else if (scheme == "sparse-index") {
    text += thousands(layout.k_row_elements) + " indexer values";
  } else {
    text += "(" + thousands(layout.k_row_elements) + " K + " + thousands(layout.v_row_elements) +
            " V) values";
  }
  if (layout.token_cap && scheme.starts_with("evict-")) {
    text += ", at most " + counted(*layout.token_cap, "token");
  } else if (layout.token_cap) {
    text += ", last " + counted(*layout.token_cap, "token") + " only";
  }
  if (layout.exact_tokens > 0) {
    text += ", but " + counted(layout.exact_tokens, "token") + " in 16 bits";
  }
  return text;
}

std::string_view in_words(MovedMatrices matrices) {
  switch (matrices) {
    case MovedMatrices::experts:
      return "experts";
    case MovedMatrices::all:
      return "feed-forward matrices";
    case MovedMatrices::all_but_up:
      return "gate and down matrices";
    case MovedMatrices::down:
      return "down matrices";
  }
  return "";
}

}  // namespace

std::string model_line(const ModelArgument& model) {
  const ParameterCount count = count_parameters(model.spec);
  const std::int64_t all = count.total;
  const std::int64_t active = count.active;
  std::string text = printable(model.spec.name) + ", " + parameters(all) + " parameters";
  if (active != all) {
    text += " (" + parameters(active) + " active)";
  }
  return text + ", " + model.weights + " weights";
}

std::string machine_line(const Machine& machine) {
  if (!machine.known()) {
    return "no GPU given";
  }
  std::string text = machine.name;
  const std::string size = gib(machine.capacities.front().bytes);
  if (machine.is_gpu_limited()) {
    return text + ", " + size + " for the GPU of " + gib(machine.capacities.back().bytes);
  }
  if (!machine.uneven_memory().empty()) {
    std::string sizes;
    for (const std::int64_t bytes : machine.uneven_memory()) {
      sizes += (sizes.empty() ? ", " : " + ") + gib(bytes);
    }
    text += sizes;
  } else if (text.find(size) == std::string::npos) {
    text += ", " + size + (machine.n_gpus > 1 ? " each" : "");
  }
  if (const Capacity& last = machine.capacities.back();
      machine.n_gpus > 0 && last.device.index == Device::kHost) {
    text += "; host " + gib(last.bytes);
  }
  return text;
}

std::string placement_line(const Placement& placement) {
  std::string text;
  for (const auto& [device, count] : placement.layers) {
    text += (text.empty() ? "" : ", ") + name(device) + " " + counted(count, "layer");
  }
  text = "Placed: " + text + " (the output head counts as one)";
  if (placement.host_expert_layers > 0) {
    text +=
        "; experts of the first " + counted(placement.host_expert_layers, "layer") + " on the host";
  }
  for (const MovedLayers& run : moved_layers(placement)) {
    const std::string device = run.device.index == Device::kHost ? "the host" : name(run.device);
    text += "; " + std::string(in_words(run.matrices)) + " of layer" +
            (run.first == run.last
                 ? " " + std::to_string(run.first)
                 : "s " + std::to_string(run.first) + " to " + std::to_string(run.last)) +
            " on " + device;
  }
  return text;
}

std::string versioned_engine(const Query& query) {
  const std::string name(query.engine->name);
  return query.engine_version.empty() ? name : name + " " + printable(query.engine_version);
}

std::string beside_the_model(const Query& query) {
  std::string text;
  if (query.draft) {
    const ModelArgument& draft = query.draft->model;
    text += ", drafting by " + printable(draft.spec.name) + " (" + draft.weights + ")";
  }
  if (query.settings.draft_tokens > 0) {
    text += ", drafting " + counted(query.settings.draft_tokens, "token") + " by MTP";
  }
  if (query.adapters) {
    const AdapterQuery& adapters = *query.adapters;
    text += adapters.file ? ", with adapter " + printable(*adapters.file)
                          : ", with " + std::to_string(adapters.slots) + " x adapter of rank " +
                                std::to_string(adapters.shape.rank);
  }
  if (query.projector) {
    text += ", with projector " + printable(query.projector->file);
  }
  constexpr std::size_t kComma = 2;
  return text.empty() ? text : text.substr(kComma);
}

std::string engine_line(const Query& query) {
  const std::string beside = beside_the_model(query);
  return versioned_engine(query) + (beside.empty() ? "" : ", " + beside);
}

void print_draft_line(Console& console, const Query& query, const MemoryLedger& ledger) {
  const bool own_block = query.settings.draft_tokens > 0;
  if (!own_block && !query.draft) {
    return;
  }
  const std::string whose =
      own_block ? "the prediction block" : printable(query.draft->model.spec.name);
  std::string text = "draft: the weights of " + whose;
  if (loads_checkpoints(*query.engine)) {
    text += own_block ? "; its layer is" : "; its layers are";
    text += " counted with the cache";
  } else {
    text += is_formula(*query.engine) ? " and its cache" : ", its cache and its buffers";
    const bool has_copies = own_block && ledger.bytes_of(LedgerKind::state) > 0;
    text += has_copies ? "; a copy of the state for each token drafted" : "";
  }
  console.paragraph(text, 2);
}

void print_default_refused(Console& console, const Query& query) {
  if (!query.default_refused.empty()) {
    console.paragraph("The formula only, without an engine's own memory (" + query.default_refused +
                      ").");
  }
}

std::string extent(std::int64_t context_tokens, std::int64_t sequences) {
  return counted(context_tokens, "token") + " x " + counted(sequences, "sequence");
}

std::string pays_text(const std::vector<Span>& spans) {
  if (spans.empty()) {
    return "never";
  }
  std::string text;
  for (const Span& span : spans) {
    const bool from_start = span.from_tokens == 1;
    const std::string from = thousands(span.from_tokens);
    text += text.empty() ? "" : ", ";
    text += !span.to_tokens ? (from_start ? "always" : "from " + from)
            : from_start    ? "up to " + thousands(*span.to_tokens)
                            : from + "-" + thousands(*span.to_tokens);
  }
  return text;
}

std::string type_pair(DType k, DType v) {
  std::string text(name(k));
  return k == v ? text : text + "/" + std::string(name(v));
}

std::string stored_line(const ModelSpec& model, const cache::SchemeRequest& scheme) {
  constexpr std::size_t kMostGroups = 3;
  auto groups = cache::layer_groups(model, scheme);
  // Layers between the checkpoints of a residual scheme keep nothing.
  std::erase_if(groups, [](const cache::LayerGroup& group) {
    const cache::CacheLayout& layout = group.layout;
    return layout.k_row_elements + layout.v_row_elements + layout.state_elements +
               layout.conv_elements + layout.k_packed_bits + layout.v_packed_bits ==
           0;
  });
  std::string text;
  for (std::size_t i = 0; i < std::min(groups.size(), kMostGroups); ++i) {
    text += (i == 0 ? "" : "; ") + stored_by(groups[i]);
  }
  if (groups.size() > kMostGroups) {
    text += "; and " + std::to_string(groups.size() - kMostGroups) + " more kinds";
  }
  return text.empty() ? "nothing" : text;
}

void print_command(Console& console,
                   const Query& query,
                   std::int64_t context_tokens,
                   const std::string& command) {
  if (command.empty()) {
    return;
  }
  console.line();
  console.line("  " + command);
  const std::int64_t trained = query.model.spec.trained_context_tokens;
  if (trained <= 0 || context_tokens <= trained) {
    return;
  }
  const std::string beyond = " refuses more than the trained " + counted(trained, "token");
  if (query.engine->name == "vllm") {
    console.paragraph("vllm" + beyond +
                          " unless --hf-overrides scales the positions or "
                          "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 is set.",
                      2);
  } else if (query.engine->name == "sglang") {
    console.paragraph("sglang" + beyond +
                          " unless --json-model-override-args scales the positions or "
                          "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN=1 is set.",
                      2);
  }
}

}  // namespace kvfathom::cli
