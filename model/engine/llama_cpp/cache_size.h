// Bytes of llama.cpp's K, V and state tensors, as its buffers hold them.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/engine/engine.h"
#include "model/engine/llama_cpp/cells.h"

namespace kvfathom::llama_cpp {

/// How a backend pads a cache tensor: every tensor to `alignment_bytes`, and on CUDA a quantised
/// one by the rest of a row of 512 elements (MATRIX_ROW_PADDING of ggml-cuda).
struct TensorPadding {
  std::int64_t alignment_bytes = 32;
  std::int64_t row_elements = 1;
};
inline constexpr TensorPadding kCpuPadding{32, 1};
inline constexpr TensorPadding kCudaPadding{128, 512};

/// One group of layers, sized.
class CacheSizer {
 public:
  /// `view` is the model as the engine sees it (engine_view), `latent_scheme` how latent layers are
  /// cached. V is padded to the widest layer's where it is kept transposed (without
  /// FlashAttention). Only layers that are `kept` count; empty: all.
  CacheSizer(const ModelSpec& view,
             CacheScheme latent_scheme,
             DType type_k,
             DType type_v,
             bool v_transposed,
             TensorPadding padding,
             const std::vector<bool>& kept = {});

  /// Everything of CacheReport but prefill_peak_bytes.
  [[nodiscard]] CacheReport report(const Cells& cells, const CellSettings& settings) const;

  /// K, V and state alone: what `report` says, without the words.
  [[nodiscard]] std::int64_t bytes(const Cells& cells, const CellSettings& settings) const;

  /// The window that all window layers share; 0 if there is none. Unsupported if they differ:
  /// llama.cpp has one window cache.
  [[nodiscard]] std::int64_t window_tokens() const { return window_tokens_; }

 private:
  struct Group {
    std::string_view scheme;
    std::int64_t n_layers = 0;
    std::int64_t k_row_bytes = 0;  ///< one token of one layer
    std::int64_t v_row_bytes = 0;
    std::int64_t k_tail_bytes = 0;  ///< padding behind a tensor, before alignment
    std::int64_t v_tail_bytes = 0;
    bool window = false;
    std::int64_t conv_bytes = 0;  ///< one sequence of one layer, f32
    std::int64_t state_bytes = 0;
  };

  [[nodiscard]] CacheGroup sized(const Group& group,
                                 const Cells& cells,
                                 const CellSettings& settings) const;
  [[nodiscard]] std::int64_t tensor_bytes(std::int64_t data_bytes, std::int64_t tail_bytes) const;

  std::vector<Group> groups_;
  TensorPadding padding_;
  std::int64_t window_tokens_ = 0;
};

}  // namespace kvfathom::llama_cpp
