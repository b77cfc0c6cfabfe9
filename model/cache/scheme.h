// Every cache scheme the model knows. To add one: a header in this folder, one name in `Scheme`,
// one enumerator in `CacheScheme`, and the layers it applies to in scheme.cpp.
#pragma once

#include <concepts>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/cache/cross_layer.h"
#include "model/cache/evict_grkv.h"
#include "model/cache/evict_h2o.h"
#include "model/cache/evict_snapkv.h"
#include "model/cache/evict_streaming.h"
#include "model/cache/evict_tova.h"
#include "model/cache/full.h"
#include "model/cache/head_linear.h"
#include "model/cache/k_only.h"
#include "model/cache/kivi.h"
#include "model/cache/mla_expanded.h"
#include "model/cache/mla_latent.h"
#include "model/cache/mla_with_v.h"
#include "model/cache/offload.h"
#include "model/cache/parameters.h"
#include "model/cache/residual.h"
#include "model/cache/sparse_index.h"
#include "model/cache/state.h"
#include "model/cache/window.h"
#include "model/cache/xquant.h"
#include "model/engine/settings.h"

namespace kvfathom::cache {

/// What a scheme must offer.
template <class S>
concept SchemeLike = std::equality_comparable<S> && requires(const S s) {
  { S::name } -> std::convertible_to<std::string_view>;
  { S::formula } -> std::convertible_to<std::string_view>;
  { S::summary } -> std::convertible_to<std::string_view>;
  { S::source } -> std::convertible_to<std::string_view>;
  { layout(s) } -> std::same_as<CacheLayout>;
};

template <SchemeLike... S>
using OneOf = std::variant<S...>;

using Scheme = OneOf<Full,
                     MlaLatent,
                     MlaWithV,
                     MlaExpanded,
                     Window,
                     State,
                     SparseIndex,
                     CrossLayer,
                     KOnly,
                     HeadLinear,
                     Residual,
                     EvictStreaming,
                     EvictH2o,
                     EvictTova,
                     EvictSnapKv,
                     EvictGrkv,
                     XQuant,
                     Kivi>;

[[nodiscard]] inline CacheLayout layout(const Scheme& scheme) {
  return std::visit([](const auto& s) { return layout(s); }, scheme);
}
[[nodiscard]] inline std::string_view name(const Scheme& scheme) {
  return std::visit([](const auto& s) -> std::string_view { return s.name; }, scheme);
}

/// A scheme and its parameters, as asked for. Where a scheme takes parameters and none are given,
/// the defaults of its header count.
struct SchemeRequest {
  CacheScheme id = CacheScheme::native;
  SchemeParameters parameters;

  // A bare id is a request for its defaults.
  SchemeRequest(CacheScheme scheme = CacheScheme::native);  // NOLINT(google-explicit-constructor)
  SchemeRequest(CacheScheme scheme, const SchemeParameters& given);
  friend bool operator==(const SchemeRequest&, const SchemeRequest&) = default;
};

/// Where a layer stands: what schemes need that look beyond it.
struct LayerPlace {
  std::int64_t hidden_size = 0;
  std::int64_t index = 0;  ///< among the model's layers that keep K and V
  std::int64_t count = 1;
};

/// The caches of one layer when `requested` is asked for: the mixer's own schemes, except that a
/// request for `full` lifts windows, one for `mla-with-v` or `mla-expanded` changes latent layers,
/// and the schemes that rebuild, evict or quantise change attention layers. A layer may hold
/// several (attention beside Mamba-2; latent beside its indexer keys).
[[nodiscard]] std::vector<Scheme> schemes_of(const Mixer& mixer,
                                             const SchemeRequest& requested,
                                             const LayerPlace& place = {});

/// InputError unless some layer of the model has the requested scheme; says why.
void require_applicable(const ModelSpec& model, const SchemeRequest& requested);

/// Whether the scheme only arranges what the model prescribes: what an engine may be asked for
/// that knows no scheme of research. The others are priced by the engine `ideal`.
[[nodiscard]] bool is_model_scheme(CacheScheme scheme);

/// One row of `kvfathom list schemes`.
struct SchemeInfo {
  CacheScheme scheme;
  std::string_view name;
  std::string_view formula;  ///< bytes per token and layer, unless it says otherwise
  std::string_view summary;
  std::string_view source;
};

/// `native` first, then each alternative of `Scheme`.
[[nodiscard]] std::span<const SchemeInfo> all_schemes();

}  // namespace kvfathom::cache
