// Where llama.cpp's own fit (--fit on, its default) puts a model that does not fit as it is: less
// context where that is enough, else layers and experts on the host.
//
// Source: llama.cpp common/fit.cpp at commit 08033df (2026-09), common_params_fit_impl. The pass is
// followed decision by decision, with a question of the caller's in the place of the engine's
// dry run: where memory does not grow evenly with the layers, the order of the guesses matters.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "model/engine/settings.h"

namespace kvfathom::llama_cpp {

/// --fit-ctx: the context below which the fit moves layers rather than shrink it.
inline constexpr std::int64_t kFitContextTokens = 4096;
/// --fit-target: what the fit leaves free on every GPU.
inline constexpr std::int64_t kFitMarginBytes = std::int64_t{1} << 30;

/// What a placement takes of one GPU.
struct GpuUse {
  std::int64_t bytes = 0;
  std::int64_t weights_bytes = 0;  ///< of them, the model's weights
};

/// A model, GPUs, and what is known of both. Contexts are tokens per sequence.
struct FitTask {
  std::int64_t n_layers = 0;  ///< without the output head
  bool has_experts = false;
  std::int64_t streams = 1;  ///< sequences with cells of their own
  std::int64_t trained_context_tokens = 0;
  std::int64_t least_context_tokens = kFitContextTokens;
  std::optional<std::int64_t> asked_context_tokens;  ///< is not shrunk
  std::vector<std::int64_t> target_bytes;            ///< what each GPU may be filled to
  bool moves_layers = true;  ///< false: shrinks the context and leaves the layers alone
  /// What `settings` take of every GPU at a context.
  std::function<std::vector<GpuUse>(const EngineSettings& settings, std::int64_t context_tokens)>
      use;
};

struct Fitted {
  EngineSettings settings;  ///< as given where nothing had to move
  std::int64_t context_tokens = 0;
};

/// The fit's choice, starting from `settings`, which place nothing by hand. The choice need not
/// fit: the last resort is the least context with every layer on the host.
[[nodiscard]] Fitted fit_to_gpus(const FitTask& task, const EngineSettings& settings);

}  // namespace kvfathom::llama_cpp
