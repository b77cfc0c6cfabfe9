#include "model/cache/applicability.h"

#include <algorithm>

#include "model/cache/groups.h"
#include "model/cache/request_text.h"
#include "model/engine/engine.h"
#include "model/error.h"

namespace kvfathom::cache {
namespace {

std::string count(std::int64_t n) {
  return std::to_string(n);
}

/// "1.25" of a quotient, cut behind two digits.
std::string ratio(std::int64_t numerator, std::int64_t denominator) {
  const std::int64_t hundredths = numerator * 100 / denominator;
  return count(hundredths / 100) + "." + count(100 + hundredths % 100).substr(1);
}

/// The first attention layer, whose shape notes are about; null: there is none.
const Attention* first_attention(const ModelSpec& model) {
  for (const LayerSpec& layer : model.layers) {
    if (const auto* attention = std::get_if<Attention>(&layer.mixer)) {
      return attention;
    }
    if (const auto* parallel = std::get_if<ParallelMixers>(&layer.mixer)) {
      return &parallel->attention;
    }
  }
  return nullptr;
}

/// Slim attention's conditions (arXiv 2503.05840).
std::string exact_projector_obstacle(const Attention& a, std::int64_t hidden_size) {
  if (a.n_heads != a.n_kv_heads) {
    return "K has lost rank: " + count(a.n_kv_heads) + " KV heads for " + count(a.n_heads) +
           " query heads (projector=learned is lossy but applies)";
  }
  if (a.kv_lora_rank > 0) {
    return "K is projected from a latent of rank " + count(a.kv_lora_rank);
  }
  if (a.n_kv_heads * a.head_dim != hidden_size) {
    return "W_K is no square matrix: " + count(hidden_size) + " x " +
           count(a.n_kv_heads * a.head_dim);
  }
  if (a.qk_norm != QkNorm::none) {
    return "K is normalised before it is cached";
  }
  return {};
}

/// The layers' mixers, those that equal the one before left out: some layer has a scheme if one of
/// these has.
std::vector<const Mixer*> different_mixers(const ModelSpec& model) {
  std::vector<const Mixer*> mixers;
  for (const LayerSpec& layer : model.layers) {
    if (mixers.empty() || *mixers.back() != layer.mixer) {
      mixers.push_back(&layer.mixer);
    }
  }
  return mixers;
}

std::string own_schemes(const ModelSpec& model) {
  std::string own;
  for (const Mixer* mixer : different_mixers(model)) {
    for (const Scheme& scheme : schemes_of(*mixer, CacheScheme::native)) {
      const std::string item(name(scheme));
      if ((", " + own + ", ").find(", " + item + ", ") == std::string::npos) {
        own += (own.empty() ? "" : ", ") + item;
      }
    }
  }
  return own.empty() ? "its layers hold no cache" : "its layers hold " + own;
}

bool holds_rows(const ModelSpec& model) {
  return std::ranges::any_of(layer_groups(model, CacheScheme::native), [](const LayerGroup& group) {
    return group.layout.k_row_elements + group.layout.v_row_elements > 0;
  });
}

void add_residual_notes(const ModelSpec& model,
                        const Attention& a,
                        const ResidualParameters& p,
                        std::vector<std::string>& notes) {
  const std::int64_t kv_width = a.n_kv_heads * (a.head_dim + a.v_head_dim);
  if (p.checkpoints == ResidualParameters::kTokens) {
    notes.emplace_back(
        "A token id is 4 bytes, but K and V of every token are computed by a whole "
        "prefill again whenever they are read.");
  } else if (p.checkpoints != ResidualParameters::kAll) {
    notes.emplace_back(
        "One vector yields K and V of its own layer alone: layers between checkpoints "
        "run again over all earlier tokens, those before the first not at all.");
  } else if (model.hidden_size >= kv_width) {
    notes.push_back("A vector per layer takes " + ratio(model.hidden_size, kv_width) +
                    " times what K and V take: it saves memory only where hidden_size (" +
                    count(model.hidden_size) + ") is below 2 * n_kv_heads * head_dim (" +
                    count(kv_width) + ").");
  } else {
    notes.push_back("A vector per layer takes " + ratio(model.hidden_size, kv_width) +
                    " of what K and V take.");
  }
}

void add_eviction_notes(CacheScheme id, const EvictionParameters& p, std::vector<std::string>& to) {
  if (p.prefill == EvictionParameters::kWholePrompt) {
    to.emplace_back(
        "Eviction does not lower the peak: K and V of the whole prompt exist in all "
        "layers before the choice (prefill=layerwise compresses as it goes).");
  } else if (p.prefill == EvictionParameters::kLayerwise) {
    to.emplace_back(
        "Each layer is compressed behind its own pass: one layer of the whole prompt "
        "beside the budget of the others, and no chunked prefill.");
  }
  const bool chooses_once = id == CacheScheme::evict_snapkv || id == CacheScheme::evict_grkv;
  if (chooses_once && p.generated == 0) {
    to.emplace_back("The choice is made once: generated tokens come on top (generated=N).");
  }
  if (id == CacheScheme::evict_grkv) {
    to.emplace_back(
        "The refinement costs prefill time, no memory: quality on top of an eviction, "
        "not capacity.");
  }
}

void add_attention_notes(const ModelSpec& model,
                         const Attention& a,
                         const SchemeRequest& requested,
                         std::vector<std::string>& notes) {
  if (const auto* residual = std::get_if<ResidualParameters>(&requested.parameters)) {
    add_residual_notes(model, a, *residual, notes);
  } else if (const auto* eviction = std::get_if<EvictionParameters>(&requested.parameters)) {
    add_eviction_notes(requested.id, *eviction, notes);
  } else if (requested.id == CacheScheme::head_linear) {
    notes.emplace_back(
        "The released code keeps the whole cache; this is the saving that it "
        "counts, with maps absorbed into queries and outputs.");
  } else if (requested.id == CacheScheme::xquant) {
    notes.emplace_back(a.n_heads == a.n_kv_heads
                           ? "MHA: X is half of K and V. K and V are rebuilt at every step."
                           : "Grouped queries: X U_k and X U_v, as many values as K and V; it wins "
                             "only by quantising better. Both are rebuilt at every step.");
  } else if (requested.id == CacheScheme::k_only &&
             std::get<KOnlyParameters>(requested.parameters).projector ==
                 KOnlyParameters::kLearned) {
    notes.emplace_back("V is predicted from K: lossy. True V is used during prefill.");
  }
}

/// Vectors are stored at the inputs of layers that the scheme applies to, at most one at each.
void require_room_for_checkpoints(const ModelSpec& model, const SchemeRequest& requested) {
  const auto* residual = std::get_if<ResidualParameters>(&requested.parameters);
  if (residual == nullptr) {
    return;
  }
  const LayerPlace place{.hidden_size = model.hidden_size};
  const auto n_layers = std::ranges::count_if(model.layers, [&](const LayerSpec& layer) {
    const auto schemes = schemes_of(layer.mixer, requested, place);
    return std::ranges::any_of(schemes,
                               [](const Scheme& scheme) { return name(scheme) == Residual::name; });
  });
  if (residual->checkpoints > n_layers) {
    throw InputError("--scheme",
                     "checkpoints=" + count(residual->checkpoints) + " for " + count(n_layers) +
                         " layers of " + model.name,
                     "at most one for each");
  }
}

}  // namespace

std::string obstacle(const Attention& attention,
                     const SchemeRequest& requested,
                     std::int64_t hidden_size) {
  if (requested.id == CacheScheme::head_linear && attention.n_kv_heads < 2) {
    return "one KV head leaves none to predict from it";
  }
  const auto* k_only = std::get_if<KOnlyParameters>(&requested.parameters);
  if (k_only != nullptr && k_only->projector == KOnlyParameters::kExact) {
    return exact_projector_obstacle(attention, hidden_size);
  }
  return {};
}

std::optional<std::string> why_not(const ModelSpec& model, const SchemeRequest& requested) {
  if (requested.id == CacheScheme::native) {
    return std::nullopt;
  }
  if (requested.id == CacheScheme::offload) {  // states stay
    return holds_rows(model) ? std::nullopt : std::optional(own_schemes(model));
  }
  const std::string_view wanted = kvfathom::name(requested.id);
  const LayerPlace place{.hidden_size = model.hidden_size};
  for (const Mixer* mixer : different_mixers(model)) {
    for (const Scheme& scheme : schemes_of(*mixer, requested, place)) {
      if (name(scheme) == wanted) {
        return std::nullopt;
      }
    }
  }
  if (const Attention* attention = first_attention(model)) {
    const std::string reason = obstacle(*attention, requested, model.hidden_size);
    if (!reason.empty()) {
      return reason;
    }
  }
  return own_schemes(model);
}

void require_applicable(const ModelSpec& model, const SchemeRequest& requested) {
  if (const auto reason = why_not(model, requested)) {
    const bool is_offload = requested.id == CacheScheme::offload;
    const std::string text =
        spelled(requested, is_offload ? std::optional(Offload{}) : std::nullopt);
    throw InputError("--scheme", '"' + text + "\" applies to no layer of " + model.name, *reason);
  }
  require_room_for_checkpoints(model, requested);
}

bool is_native_scheme(const ModelSpec& model, CacheScheme scheme) {
  const std::string_view wanted = kvfathom::name(scheme);
  bool is_held = false;
  bool has_windows = false;
  for (const Mixer* mixer : different_mixers(model)) {
    for (const Scheme& own : schemes_of(*mixer, CacheScheme::native)) {
      const bool is_owner = !layout(own).shares_with_layer;
      is_held = is_held || (is_owner && name(own) == wanted);
      has_windows = has_windows || (is_owner && name(own) == Window::name);
    }
  }
  return is_held && !(scheme == CacheScheme::full && has_windows);
}

EngineSettings with_native_scheme(const ModelSpec& model, EngineSettings settings) {
  if (is_native_scheme(model, settings.scheme)) {
    settings.scheme = CacheScheme::native;
  }
  return settings;
}

void require_model_scheme(std::string_view engine, const EngineSettings& settings) {
  if (is_model_scheme(settings.scheme) && !settings.offload) {
    return;
  }
  const SchemeRequest requested{settings.scheme, settings.scheme_parameters};
  throw Unsupported("--scheme",
                    '"' + spelled(requested, settings.offload) + "\" is nothing that " +
                        std::string(engine) + " runs",
                    "--engine ideal prices it");
}

bool is_exact(const SchemeRequest& requested) {
  if (const auto* k_only = std::get_if<KOnlyParameters>(&requested.parameters)) {
    return k_only->projector == KOnlyParameters::kExact;
  }
  return std::holds_alternative<std::monostate>(requested.parameters) ||
         std::holds_alternative<ResidualParameters>(requested.parameters);
}

std::vector<std::string> notes(const ModelSpec& model,
                               const SchemeRequest& requested,
                               const std::optional<Offload>& offload) {
  std::vector<std::string> result;
  if (const Attention* attention = first_attention(model)) {
    add_attention_notes(model, *attention, requested, result);
  }
  if (offload) {
    result.emplace_back(ratio(offload->kept, kWhole) +
                        " of K and V stay with the device; the rest is read anew at every step.");
  }
  if (offload && offload->tier != Offload::kHost) {
    result.emplace_back("What is in the slower tier counts on no device.");
  }
  return result;
}

}  // namespace kvfathom::cache
