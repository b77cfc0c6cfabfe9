// kvfathom inspect: what a model's file says.
#include <algorithm>
#include <map>

#include "cli/commands.h"
#include "cli/describe.h"
#include "cli/format.h"
#include "cli/json_writer.h"
#include "cli/model_argument.h"
#include "cli/table.h"
#include "model/architecture/parameters.h"
#include "model/cache/groups.h"
#include "model/io/inspect_json.h"

namespace kvfathom::cli {
namespace {

constexpr std::size_t kRunsInTitle = 4;

/// Layers of one form that follow each other.
struct Run {
  std::size_t first = 0;
  std::size_t count = 0;
};

std::vector<Run> runs_of(const std::vector<LayerSpec>& layers) {
  std::vector<Run> runs;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (!runs.empty() && layers[i] == layers[runs.back().first]) {
      ++runs.back().count;
    } else {
      runs.push_back({i, 1});
    }
  }
  return runs;
}

/// Layers of each form, in order of first appearance: for models whose forms alternate.
struct Form {
  std::size_t example = 0;
  std::vector<std::size_t> members;
};

std::vector<Form> forms_of(const std::vector<LayerSpec>& layers) {
  std::vector<Form> forms;
  for (const Run& run : runs_of(layers)) {
    const auto same = std::find_if(forms.begin(), forms.end(), [&](const Form& form) {
      return layers[form.example] == layers[run.first];
    });
    Form& form = same == forms.end() ? forms.emplace_back(Form{run.first, {}}) : *same;
    for (std::size_t i = 0; i < run.count; ++i) {
      form.members.push_back(run.first + i);
    }
  }
  return forms;
}

/// "0-46", "0, 6, 12, 18 ..", as many runs as `most`.
std::string numbers(const std::vector<std::size_t>& members, std::size_t most) {
  std::string text;
  std::size_t shown = 0;
  for (std::size_t i = 0; i < members.size(); ++shown) {
    std::size_t last = i;
    while (last + 1 < members.size() && members[last + 1] == members[last] + 1) {
      ++last;
    }
    if (shown == most) {
      return text + " ..";
    }
    text += (i == 0 ? "" : ", ") + std::to_string(members[i]);
    if (last > i) {
      text += (last == i + 1 ? ", " : "-") + std::to_string(members[last]);
    }
    i = last + 1;
  }
  return text;
}

void print_facts(Console& console, const ModelArgument& model) {
  const ModelSpec& spec = model.spec;
  const ParameterCount count = count_parameters(spec);
  Table table{.columns = {{""}, {""}}, .rows = {}};
  const auto add = [&](const char* what, std::string text) {
    table.rows.push_back({{what, Style::dim}, {std::move(text)}});
  };
  add("architecture", printable(spec.architecture));
  std::string size = parameters(count.total);
  if (count.active != count.total) {
    size += ", " + parameters(count.active) + " active per token";
  }
  add("parameters", size);
  for (const ExtraPart& part : spec.extras) {
    add(part.kind.c_str(), parameters(part.n_parameters) + " more");
  }
  add("hidden size", thousands(spec.hidden_size));
  add("vocabulary",
      thousands(spec.vocab_size) + (spec.tied_embeddings ? ", tied to the output" : ""));
  add("trained context", counted(spec.trained_context_tokens, "token"));
  if (!spec.tensors.empty()) {
    std::int64_t bytes = 0;
    for (const Tensor& tensor : spec.tensors) {
      bytes += data_bytes(tensor);
    }
    add("weights",
        gib(bytes) + " in " + thousands(static_cast<std::int64_t>(spec.tensors.size())) +
            " tensors" + (model.foretold ? ", as " + model.weights + " would be" : ""));
  }
  print(console, table);
}

void print_types(Console& console, const std::vector<Tensor>& tensors) {
  std::map<DType, std::pair<std::int64_t, std::int64_t>> by_type;  // tensors, bytes
  for (const Tensor& tensor : tensors) {
    by_type[tensor.dtype].first += 1;
    by_type[tensor.dtype].second += data_bytes(tensor);
  }
  Table table{.columns = {{"type"}, {"tensors", Align::right}, {"GiB", Align::right}}, .rows = {}};
  for (const auto& [dtype, sums] : by_type) {
    table.rows.push_back(
        {{std::string(name(dtype))}, {thousands(sums.first)}, {gib_number(sums.second)}});
  }
  print(console, table);
}

void print_layers(Console& console, const ModelSpec& spec) {
  for (const Form& form : forms_of(spec.layers)) {
    const LayerSpec& layer = spec.layers[form.example];
    const auto n = static_cast<std::int64_t>(form.members.size());
    console.line("  " + console.styled(counted(n, "layer"), Style::bold) + " (" +
                 numbers(form.members, kRunsInTitle) + ")");
    console.paragraph(describe(layer.mixer), 4);
    console.paragraph(describe(layer.feed_forward), 4);
  }
}

/// "full, 1,024 K + 1,024 V values, 4,096 B per token".
std::string planned(const cache::Scheme& scheme) {
  constexpr std::int64_t kRowElementBytes = 2;
  const cache::CacheLayout layout = cache::layout(scheme);
  std::string text(cache::name(scheme));
  if (layout.shares_with_layer) {
    return text + ", reads layer " + std::to_string(*layout.shares_with_layer);
  }
  if (layout.state_elements + layout.conv_elements > 0) {
    return text + ", " + thousands(layout.state_elements) + " values and " +
           thousands(layout.conv_elements) + " of a convolution per sequence";
  }
  text += ", " + thousands(layout.k_row_elements) + " K";
  if (layout.v_row_elements > 0) {
    text += " + " + thousands(layout.v_row_elements) + " V";
  }
  text += " values, " +
          thousands(kRowElementBytes * (layout.k_row_elements + layout.v_row_elements)) +
          " B per token";
  return layout.token_cap ? text + " of the last " + thousands(*layout.token_cap) : text;
}

/// Layers that keep the same.
struct PlannedLayers {
  std::vector<cache::Scheme> schemes;
  std::vector<std::size_t> layers;
};

std::vector<PlannedLayers> cache_plan(const ModelSpec& spec) {
  const auto schemes = cache::layer_schemes(spec, CacheScheme::native);
  std::vector<PlannedLayers> plan;
  for (std::size_t i = 0; i < schemes.size(); ++i) {
    const auto same = std::ranges::find(plan, schemes[i], &PlannedLayers::schemes);
    (same == plan.end() ? plan.emplace_back(PlannedLayers{schemes[i], {}}) : *same)
        .layers.push_back(i);
  }
  return plan;
}

Json cache_plan_json(const ModelSpec& spec) {
  Json plan = Json::array();
  for (const PlannedLayers& row : cache_plan(spec)) {
    Json caches = Json::array();
    for (const cache::Scheme& scheme : row.schemes) {
      const cache::CacheLayout layout = cache::layout(scheme);
      Json json{{"scheme", cache::name(scheme)},
                {"k_row_elements", layout.k_row_elements},
                {"v_row_elements", layout.v_row_elements},
                {"state_elements", layout.state_elements},
                {"conv_elements", layout.conv_elements}};
      if (layout.token_cap) {
        json["token_cap"] = *layout.token_cap;
      }
      if (layout.shares_with_layer) {
        json["shares_with_layer"] = *layout.shares_with_layer;
      }
      caches.push_back(std::move(json));
    }
    plan.push_back({{"layers", row.layers}, {"caches", std::move(caches)}});
  }
  return plan;
}

void print_cache_plan(Console& console, const ModelSpec& spec) {
  console.line("  " + console.styled("Cache plan", Style::bold) + ", bytes at 16 bits (states 32)");
  for (const PlannedLayers& row : cache_plan(spec)) {
    std::string text = "layers " + numbers(row.layers, row.layers.size()) + ": ";
    for (const cache::Scheme& scheme : row.schemes) {
      text += (&scheme == &row.schemes.front() ? "" : " and ") + planned(scheme);
    }
    console.paragraph(text + (row.schemes.empty() ? "nothing" : ""), 4);
  }
}

}  // namespace

int inspect(const Options& options, Console& console) {
  const ModelArgument model =
      options.weights ? read_model(options.model, options.weights) : read_model_spec(options.model);
  if (console.json) {
    Json json = Json::parse(inspect_document(model.spec));
    Json ordered = document("inspect");
    for (auto& [key, value] : json.items()) {
      ordered[key] = std::move(value);
    }
    ordered["cache_plan"] = cache_plan_json(model.spec);
    print_json(console, ordered);
    return 0;
  }
  console.line(console.styled(printable(model.spec.name), Style::bold));
  print_facts(console, model);
  console.line();
  print_layers(console, model.spec);
  console.line();
  print_cache_plan(console, model.spec);
  if (!model.spec.tensors.empty()) {
    console.line();
    print_types(console, model.spec.tensors);
  }
  return 0;
}

}  // namespace kvfathom::cli
