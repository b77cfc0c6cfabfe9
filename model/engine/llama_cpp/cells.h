// How llama.cpp rounds a context into cells, streams and batches.
#pragma once

#include <cstdint>

#include "model/engine/llama_cpp/behaviours.h"

namespace kvfathom::llama_cpp {

/// Of one context: LLAMA_MAX_SEQ of src/llama-cparams.h ("n_seq_max must be <= 256"). It was 64
/// until github.com/ggml-org/llama.cpp/pull/15916 (September 2025), which is not told apart here.
inline constexpr std::int64_t kMostSequences = 256;

/// What the rounding depends on, besides the context.
struct CellSettings {
  std::int64_t sequences = 1;
  std::int64_t batch_tokens = 2048;  ///< n_batch as asked
  std::int64_t ubatch_tokens = 512;  ///< n_ubatch as asked; 0: as the batch
  bool kv_unified = false;
  bool swa_full = false;
  bool flash_attention = true;
  Behaviours behaviours;
};

/// The rounded numbers (llama-context.cpp and llama-kv-cache*.cpp).
struct Cells {
  std::int64_t n_ctx_seq = 0;  ///< cells of a stream of the full cache
  std::int64_t streams = 1;
  std::int64_t n_batch = 0;   ///< clipped to the context as asked
  std::int64_t n_ubatch = 0;  ///< clipped to the batch
};

/// Rounds a total context (llama.cpp's -c). InputError if it is less than one cell per sequence,
/// which the engine refuses.
[[nodiscard]] Cells cells_of(std::int64_t total_context_tokens, const CellSettings& settings);

/// Cells of a stream of the sliding-window cache for windows of `window_tokens`.
[[nodiscard]] std::int64_t window_cells(const Cells& cells,
                                        const CellSettings& settings,
                                        std::int64_t window_tokens);

}  // namespace kvfathom::llama_cpp
