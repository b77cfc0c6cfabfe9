// Where a scheme applies, and what an answer must say about it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/cache/scheme.h"
#include "model/engine/settings.h"

namespace kvfathom::cache {

/// Why the scheme cannot be had of one attention layer ("K has lost rank: ..."); empty: it can.
[[nodiscard]] std::string obstacle(const Attention& attention,
                                   const SchemeRequest& requested,
                                   std::int64_t hidden_size);

/// Why no layer of the model has the scheme; nothing: some layer has it.
[[nodiscard]] std::optional<std::string> why_not(const ModelSpec& model,
                                                 const SchemeRequest& requested);

/// Whether the model's own layers hold the scheme: asking for it is asking for `native`. Beside
/// windows `full` is not native: it lifts them.
[[nodiscard]] bool is_native_scheme(const ModelSpec& model, CacheScheme scheme);

/// The settings with `native` in the place of a scheme that the model's own layers hold.
[[nodiscard]] EngineSettings with_native_scheme(const ModelSpec& model, EngineSettings settings);

/// Unsupported, naming the scheme, if the settings ask for one that only `ideal` prices.
void require_model_scheme(std::string_view engine, const EngineSettings& settings);

/// Whether the scheme computes the same function as the model's own cache.
[[nodiscard]] bool is_exact(const SchemeRequest& requested);

/// What one should know who reads the answer: a sentence each.
[[nodiscard]] std::vector<std::string> notes(const ModelSpec& model,
                                             const SchemeRequest& requested,
                                             const std::optional<Offload>& offload);

}  // namespace kvfathom::cache
