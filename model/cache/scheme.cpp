#include "model/cache/scheme.h"

#include <algorithm>
#include <array>
#include <string>

#include "model/engine/engine.h"
#include "model/error.h"

namespace kvfathom::cache {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

std::vector<Scheme> attention_schemes(const Attention& a, CacheScheme requested) {
  const Full full{a.n_kv_heads, a.head_dim, a.v_head_dim};
  std::vector<Scheme> schemes;
  if (a.window_tokens && requested != CacheScheme::full) {
    schemes.emplace_back(Window{full, *a.window_tokens});
  } else {
    schemes.emplace_back(full);
  }
  if (a.indexer) {
    schemes.emplace_back(SparseIndex{a.indexer->head_dim});
  }
  return schemes;
}

std::vector<Scheme> latent_schemes(const LatentAttention& a, CacheScheme requested) {
  const MlaLatent latent{a.kv_lora_rank, a.qk_rope_head_dim};
  std::vector<Scheme> schemes;
  if (requested == CacheScheme::mla_expanded) {
    schemes.emplace_back(
        MlaExpanded{a.n_heads, a.qk_nope_head_dim, a.qk_rope_head_dim, a.v_head_dim});
  } else if (requested == CacheScheme::mla_with_v) {
    schemes.emplace_back(MlaWithV{latent});
  } else {
    schemes.emplace_back(latent);
  }
  if (a.indexer) {
    schemes.emplace_back(SparseIndex{a.indexer->head_dim});
  }
  return schemes;
}

template <class S>
constexpr SchemeInfo row(CacheScheme scheme) {
  return {scheme, S::name, S::formula, S::summary};
}

constexpr std::array<SchemeInfo, std::variant_size_v<Scheme> + 1> kSchemes{{
    {CacheScheme::native,
     "native",
     "each layer's own scheme",
     "What the model prescribes, layer by layer; the default."},
    row<Full>(CacheScheme::full),
    row<MlaLatent>(CacheScheme::mla_latent),
    row<MlaWithV>(CacheScheme::mla_with_v),
    row<MlaExpanded>(CacheScheme::mla_expanded),
    row<Window>(CacheScheme::window),
    row<State>(CacheScheme::state),
    row<SparseIndex>(CacheScheme::sparse_index),
    row<CrossLayer>(CacheScheme::cross_layer),
}};
static_assert(std::ranges::is_sorted(kSchemes, {}, &SchemeInfo::scheme), "rows follow the enum");

}  // namespace

std::vector<Scheme> schemes_of(const Mixer& mixer, CacheScheme requested) {
  using Schemes = std::vector<Scheme>;
  return std::visit(Overloaded{
                        [&](const Attention& a) { return attention_schemes(a, requested); },
                        [&](const LatentAttention& a) { return latent_schemes(a, requested); },
                        [&](const ParallelMixers& p) {
                          Schemes schemes = attention_schemes(p.attention, requested);
                          schemes.emplace_back(state_of(p.mamba2));
                          return schemes;
                        },
                        [](const SharedAttention& s) { return Schemes{CrossLayer{s.with_layer}}; },
                        [](const NoMixer&) { return Schemes{}; },
                        [](const auto& recurrent) { return Schemes{state_of(recurrent)}; },
                    },
                    mixer);
}

void require_applicable(const ModelSpec& model, CacheScheme requested) {
  if (requested == CacheScheme::native) {
    return;
  }
  const std::string_view wanted = kvfathom::name(requested);
  std::string own;
  for (const LayerSpec& layer : model.layers) {
    const auto is_wanted = [&](const Scheme& scheme) { return name(scheme) == wanted; };
    if (std::ranges::any_of(schemes_of(layer.mixer, requested), is_wanted)) {
      return;
    }
    for (const Scheme& scheme : schemes_of(layer.mixer, CacheScheme::native)) {
      const std::string item(name(scheme));
      if ((", " + own + ", ").find(", " + item + ", ") == std::string::npos) {
        own += (own.empty() ? "" : ", ") + item;
      }
    }
  }
  throw InputError("--scheme",
                   '"' + std::string(wanted) + "\" applies to no layer of " + model.name,
                   own.empty() ? "its layers hold no cache" : "its layers hold " + own);
}

std::span<const SchemeInfo> all_schemes() {
  return kSchemes;
}

}  // namespace kvfathom::cache
