// What GGUF architectures do that their files do not say: one row each. Internal to the GGUF
// reader.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace kvfathom {

/// What a layer that attends holds. `latent` needs attention.key_length_mla in the file: without
/// it (DeepSeek files from before mid 2025) the up-projection is stored whole and engines cache K
/// and V of every head, so the layer is read as plain attention.
enum class GgufAttention : std::uint8_t { plain, latent };

/// What a recurrent layer holds.
enum class GgufRecurrent : std::uint8_t { none, mamba, mamba2, gated_delta_net, kda, short_conv };

/// Which layers are recurrent.
enum class GgufRecurrentLayers : std::uint8_t {
  all,
  beside_attention,         ///< all, each with attention next to it (Falcon-H1)
  without_kv_heads,         ///< where head_count_kv is 0 (Jamba, Granite-4 H, LFM2, Kimi)
  without_kv_heads_and_ff,  ///< and feed_forward_length as well (Nemotron-H)
  all_but_every_nth,        ///< (i + 1) % full_attention_interval != 0 (Qwen3-Next)
};

/// Which layers have a window. attention.sliding_window_pattern, as an array, overrides all of
/// them; as a number it is the period.
enum class GgufWindowLayers : std::uint8_t {
  all,                 ///< every layer, if the file has a window at all
  all_but_last_of_n,   ///< (i + 1) % n != 0
  all_but_first_of_n,  ///< i % n != 0
  by_array,            ///< the pattern must be in the file
};

struct GgufWindows {
  GgufWindowLayers layers = GgufWindowLayers::all;
  std::int64_t period = 1;
  std::int64_t default_tokens = 0;  ///< where attention.sliding_window is missing; 0: no window
  bool required = false;            ///< attention.sliding_window must be in the file
  std::int64_t fixed_tokens = 0;    ///< whatever the file says, if not that there is none
  bool chunked = false;
};

/// Which attention layers rotate.
enum class GgufRope : std::uint8_t {
  all,
  none,
  windowed_only,        ///< where any layer has a window (Command R7B, EXAONE-4)
  not_every_fourth,     ///< (i + 1) % 4 != 0 (SmolLM3, Llama-4 with chunks)
  not_first_of_four,    ///< i % 4 != 0 (SmallThinker with windows)
  unless_switched_off,  ///< rope.scaling.finetuned = false: none (Granite)
};

/// Layers that read the K and V of an earlier one.
enum class GgufSharedKv : std::uint8_t {
  none,
  from_layer_20,  ///< Gemma-3n
  last_n_by_key,  ///< attention.shared_kv_layers (Gemma-4)
};

struct GgufArchitecture {
  std::string_view name;
  GgufAttention attention = GgufAttention::plain;
  GgufRecurrent recurrent = GgufRecurrent::none;
  GgufRecurrentLayers recurrent_layers = GgufRecurrentLayers::all;
  GgufWindows windows{};
  GgufRope rope = GgufRope::all;
  GgufSharedKv shared_kv = GgufSharedKv::none;
  bool parallel_residual = false;  ///< where a layer has no norm before its feed-forward
  bool scaled_embedding = false;   ///< by the root of the width (Gemma)
  bool attention_softcap = false;
  bool logit_softcap = false;  ///< also where final_logit_softcapping is missing
  bool indexer = false;        ///< DeepSeek sparse attention
  std::string_view output_norm = "output_norm";
};

/// All that are read.
[[nodiscard]] std::span<const GgufArchitecture> gguf_architectures();

/// The row of `name`. Throws Unsupported: an encoder or a part of a model by what it is, any other
/// by its name. `where` begins the message.
[[nodiscard]] const GgufArchitecture& gguf_architecture(std::string_view name,
                                                        const std::string& where);

}  // namespace kvfathom
