#include "model/cache/scheme.h"

#include <algorithm>
#include <array>

#include "model/cache/applicability.h"

namespace kvfathom::cache {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

template <class P>
P parameters_of(const SchemeRequest& requested) {
  const P* const given = std::get_if<P>(&requested.parameters);
  return given == nullptr ? P{} : *given;
}

Residual residual_of(const KvRows& kv, const ResidualParameters& p, const LayerPlace& place) {
  const std::int64_t n = p.checkpoints;
  const bool stored = n == ResidualParameters::kAll || place.index == 0 ||
                      place.index * n / place.count != (place.index - 1) * n / place.count;
  const bool holds_ids = n == ResidualParameters::kTokens && place.index == 0;
  return {kv, p, place.hidden_size, stored, holds_ids};
}

/// The cache of one attention layer; its own scheme where the requested one does not apply to it.
Scheme attention_scheme(const Attention& a,
                        const SchemeRequest& requested,
                        const LayerPlace& place) {
  const Full full{a.n_kv_heads, a.head_dim, a.v_head_dim};
  const KvRows kv{full, a.window_tokens.value_or(0)};
  if (obstacle(a, requested, place.hidden_size).empty()) {
    switch (requested.id) {
      case CacheScheme::k_only:
        return KOnly{kv, parameters_of<KOnlyParameters>(requested)};
      case CacheScheme::head_linear:
        return HeadLinear{kv, parameters_of<HeadLinearParameters>(requested)};
      case CacheScheme::residual:
        return residual_of(kv, parameters_of<ResidualParameters>(requested), place);
      case CacheScheme::evict_streaming:
        return EvictStreaming{kv, parameters_of<EvictionParameters>(requested)};
      case CacheScheme::evict_h2o:
        return EvictH2o{kv, parameters_of<EvictionParameters>(requested)};
      case CacheScheme::evict_tova:
        return EvictTova{kv, parameters_of<EvictionParameters>(requested)};
      case CacheScheme::evict_snapkv:
        return EvictSnapKv{kv, parameters_of<EvictionParameters>(requested)};
      case CacheScheme::evict_grkv:
        return EvictGrkv{kv, parameters_of<EvictionParameters>(requested)};
      case CacheScheme::xquant:
        return XQuant{kv,
                      parameters_of<XQuantParameters>(requested),
                      place.hidden_size,
                      a.n_heads != a.n_kv_heads};
      case CacheScheme::kivi:
        return Kivi{kv, parameters_of<KiviParameters>(requested)};
      default:
        break;
    }
  }
  if (a.window_tokens && requested.id != CacheScheme::full) {
    return Window{full, *a.window_tokens};
  }
  return full;
}

std::vector<Scheme> attention_schemes(const Attention& a,
                                      const SchemeRequest& requested,
                                      const LayerPlace& place) {
  std::vector<Scheme> schemes{attention_scheme(a, requested, place)};
  if (a.indexer) {
    schemes.emplace_back(SparseIndex{a.indexer->head_dim});
  }
  return schemes;
}

SchemeParameters defaults_of(CacheScheme scheme) {
  switch (scheme) {
    case CacheScheme::k_only:
      return KOnlyParameters{};
    case CacheScheme::head_linear:
      return HeadLinearParameters{};
    case CacheScheme::residual:
      return ResidualParameters{};
    case CacheScheme::evict_streaming:
      return EvictStreaming::kDefaults;
    case CacheScheme::evict_h2o:
      return EvictH2o::kDefaults;
    case CacheScheme::evict_tova:
      return EvictTova::kDefaults;
    case CacheScheme::evict_snapkv:
      return EvictSnapKv::kDefaults;
    case CacheScheme::evict_grkv:
      return EvictGrkv::kDefaults;
    case CacheScheme::xquant:
      return XQuantParameters{};
    case CacheScheme::kivi:
      return KiviParameters{};
    default:
      return {};
  }
}

std::vector<Scheme> latent_schemes(const LatentAttention& a, const SchemeRequest& requested) {
  const MlaLatent latent{a.kv_lora_rank, a.qk_rope_head_dim};
  std::vector<Scheme> schemes;
  if (requested.id == CacheScheme::mla_expanded) {
    schemes.emplace_back(
        MlaExpanded{a.n_heads, a.qk_nope_head_dim, a.qk_rope_head_dim, a.v_head_dim});
  } else if (requested.id == CacheScheme::mla_with_v) {
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
  return {scheme, S::name, S::formula, S::summary, S::source};
}

constexpr std::array<SchemeInfo, std::variant_size_v<Scheme> + 2> kSchemes{{
    {CacheScheme::native,
     "native",
     "each layer's own scheme",
     "What the model prescribes, layer by layer; the default.",
     "the model's own config"},
    row<Full>(CacheScheme::full),
    row<MlaLatent>(CacheScheme::mla_latent),
    row<MlaWithV>(CacheScheme::mla_with_v),
    row<MlaExpanded>(CacheScheme::mla_expanded),
    row<Window>(CacheScheme::window),
    row<State>(CacheScheme::state),
    row<SparseIndex>(CacheScheme::sparse_index),
    row<CrossLayer>(CacheScheme::cross_layer),
    row<KOnly>(CacheScheme::k_only),
    row<HeadLinear>(CacheScheme::head_linear),
    row<Residual>(CacheScheme::residual),
    row<EvictStreaming>(CacheScheme::evict_streaming),
    row<EvictH2o>(CacheScheme::evict_h2o),
    row<EvictTova>(CacheScheme::evict_tova),
    row<EvictSnapKv>(CacheScheme::evict_snapkv),
    row<EvictGrkv>(CacheScheme::evict_grkv),
    row<XQuant>(CacheScheme::xquant),
    row<Kivi>(CacheScheme::kivi),
    row<Offload>(CacheScheme::offload),
}};
static_assert(std::ranges::is_sorted(kSchemes, {}, &SchemeInfo::scheme), "rows follow the enum");

}  // namespace

SchemeRequest::SchemeRequest(CacheScheme scheme) : SchemeRequest(scheme, std::monostate{}) {}

SchemeRequest::SchemeRequest(CacheScheme scheme, const SchemeParameters& given)
    : id(scheme),
      parameters(std::holds_alternative<std::monostate>(given) ? defaults_of(scheme) : given) {}

bool is_model_scheme(CacheScheme scheme) {
  return scheme <= CacheScheme::cross_layer;
}

std::vector<Scheme> schemes_of(const Mixer& mixer,
                               const SchemeRequest& requested,
                               const LayerPlace& place) {
  using Schemes = std::vector<Scheme>;
  return std::visit(Overloaded{
                        [&](const Attention& a) { return attention_schemes(a, requested, place); },
                        [&](const LatentAttention& a) { return latent_schemes(a, requested); },
                        [&](const ParallelMixers& p) {
                          Schemes schemes = attention_schemes(p.attention, requested, place);
                          schemes.emplace_back(state_of(p.mamba2));
                          return schemes;
                        },
                        [](const SharedAttention& s) { return Schemes{CrossLayer{s.with_layer}}; },
                        [](const NoMixer&) { return Schemes{}; },
                        [](const auto& recurrent) { return Schemes{state_of(recurrent)}; },
                    },
                    mixer);
}

std::span<const SchemeInfo> all_schemes() {
  return kSchemes;
}

}  // namespace kvfathom::cache
