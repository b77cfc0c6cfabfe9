// Every cache scheme the model knows. To add one: a header in this folder, one name in `Scheme`,
// one enumerator in `CacheScheme`, and the layers it applies to in scheme.cpp.
#pragma once

#include <concepts>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/cache/cross_layer.h"
#include "model/cache/full.h"
#include "model/cache/mla_expanded.h"
#include "model/cache/mla_latent.h"
#include "model/cache/mla_with_v.h"
#include "model/cache/sparse_index.h"
#include "model/cache/state.h"
#include "model/cache/window.h"
#include "model/engine/settings.h"

namespace kvfathom::cache {

/// What a scheme must offer.
template <class S>
concept SchemeLike = std::equality_comparable<S> && requires(const S s) {
  { S::name } -> std::convertible_to<std::string_view>;
  { S::formula } -> std::convertible_to<std::string_view>;
  { S::summary } -> std::convertible_to<std::string_view>;
  { layout(s) } -> std::same_as<CacheLayout>;
};

template <SchemeLike... S>
using OneOf = std::variant<S...>;

using Scheme =
    OneOf<Full, MlaLatent, MlaWithV, MlaExpanded, Window, State, SparseIndex, CrossLayer>;

[[nodiscard]] inline CacheLayout layout(const Scheme& scheme) {
  return std::visit([](const auto& s) { return layout(s); }, scheme);
}
[[nodiscard]] inline std::string_view name(const Scheme& scheme) {
  return std::visit([](const auto& s) -> std::string_view { return s.name; }, scheme);
}

/// The caches of one layer when `requested` is asked for: the mixer's own schemes, except that a
/// request for `full` lifts windows and one for `mla-with-v` or `mla-expanded` changes latent
/// layers. A layer may hold several (attention beside Mamba-2; latent beside its indexer keys).
[[nodiscard]] std::vector<Scheme> schemes_of(const Mixer& mixer, CacheScheme requested);

/// InputError unless some layer of the model has the requested scheme; says which it has.
void require_applicable(const ModelSpec& model, CacheScheme requested);

/// One row of `kvfathom list schemes`.
struct SchemeInfo {
  CacheScheme scheme;
  std::string_view name;
  std::string_view formula;  ///< bytes per token and layer, unless it says otherwise
  std::string_view summary;
};

/// `native` first, then each alternative of `Scheme`.
[[nodiscard]] std::span<const SchemeInfo> all_schemes();

}  // namespace kvfathom::cache
