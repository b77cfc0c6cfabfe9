// From keys and tensors of a GGUF model to its mixers and feed-forwards. Internal to the GGUF
// reader.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/io/gguf_architectures.h"
#include "model/io/gguf_keys.h"
#include "model/io/gguf_tensors.h"

namespace kvfathom {

// Far above any model, low enough that no product of sizes overflows behind the reader.
inline constexpr GgufRange kLayerCount{.min = 1, .max = 1024};
inline constexpr GgufRange kHeadCount{.min = 0, .max = 1 << 14};
inline constexpr GgufRange kHeadDim{.min = 1, .max = 1 << 14};
inline constexpr GgufRange kWidth{.min = 1, .max = 1 << 20};
inline constexpr GgufRange kWidthOrNone{.min = 0, .max = 1 << 26};
inline constexpr GgufRange kTokens{.min = 0, .max = std::int64_t{1} << 32};

/// Everything that the layers are made from.
struct GgufSource {
  const GgufArchitecture& architecture;
  const GgufKeys& keys;
  const GgufTensors& tensors;
  std::int64_t hidden_size = 0;
  std::int64_t n_layers = 0;  ///< the decoder's own
  std::int64_t n_stored = 0;  ///< with those behind it (multi-token prediction)
};

/// Head counts and the layers without any. One entry per layer.
struct GgufHeads {
  std::vector<std::int64_t> n_heads;
  std::vector<std::int64_t> n_kv_heads;
};

[[nodiscard]] GgufHeads gguf_heads(const GgufSource& source);

/// Head sizes, windows and rotation of the attention layers.
struct GgufAttentionPlan {
  /// Of layers without and with a window.
  struct Dims {
    std::int64_t head = 0;
    std::int64_t v_head = 0;
    std::int64_t rope = 0;
  };
  Dims full;
  Dims windowed;
  std::int64_t window_tokens = 0;  ///< 0: no layer has a window
  std::vector<bool> has_window;    ///< by layer
  std::vector<bool> rotates;       ///< by layer
  std::int64_t first_shared = 0;   ///< layers from here on read K and V of an earlier one
  std::vector<bool> has_indexer;   ///< by layer
  std::optional<Indexer> indexer;
};

[[nodiscard]] GgufAttentionPlan gguf_attention_plan(const GgufSource& source,
                                                    const GgufHeads& heads);

/// What attends in `layer`: Attention, LatentAttention, SharedAttention, or NoMixer where the layer
/// has no KV heads.
[[nodiscard]] Mixer gguf_attention(const GgufSource& source,
                                   const GgufHeads& heads,
                                   const GgufAttentionPlan& plan,
                                   std::int64_t layer);

/// Which layers hold state.
[[nodiscard]] std::vector<bool> gguf_recurrent_layers(const GgufSource& source,
                                                      const GgufHeads& heads);

/// The state-holding mixer of `layer`.
[[nodiscard]] Mixer gguf_recurrent(const GgufSource& source,
                                   const GgufHeads& heads,
                                   std::int64_t layer);

/// What the tensors of `layer` say it has; NoFeedForward if they say nothing.
[[nodiscard]] FeedForward gguf_feed_forward(const GgufSource& source, std::int64_t layer);

}  // namespace kvfathom
