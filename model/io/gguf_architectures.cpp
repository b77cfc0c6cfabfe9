#include "model/io/gguf_architectures.h"

#include <algorithm>
#include <array>
#include <string>

#include "model/error.h"
#include "model/io/gguf.h"

namespace kvfathom {
namespace {

using A = GgufArchitecture;
using Layers = GgufWindowLayers;

constexpr GgufWindows kEverySecond{
    .layers = Layers::all_but_last_of_n, .period = 2, .required = true};
constexpr GgufWindows kThreeOfFour{.layers = Layers::all_but_last_of_n, .period = 4};
constexpr GgufWindows kThreeOfFourRequired{
    .layers = Layers::all_but_last_of_n, .period = 4, .required = true};
constexpr GgufWindows kByArray{.layers = Layers::by_array, .required = true};

// Rules as llama.cpp applies them (src/llama-model.cpp and src/models/*.cpp, August 2026), except
// that a window in the file is believed everywhere: what a model is does not depend on the engine,
// and which architectures' windows an engine leaves unused is for model/engine/ to know.
constexpr auto kArchitectures = std::to_array<GgufArchitecture>({
    // Plain attention; what differs (biases, norms, gates, experts, ties) shows in the tensors.
    A{.name = "arcee"},
    A{.name = "bailingmoe"},
    A{.name = "bailingmoe2"},
    A{.name = "command-r", .parallel_residual = true},
    A{.name = "deci"},
    A{.name = "deepseek"},
    A{.name = "dots1"},
    A{.name = "ernie4_5"},
    A{.name = "ernie4_5-moe"},
    A{.name = "exaone"},
    A{.name = "falcon", .parallel_residual = true},
    A{.name = "gemma", .scaled_embedding = true},
    A{.name = "glm4"},
    A{.name = "glm4moe"},
    A{.name = "gpt2", .rope = GgufRope::none},
    A{.name = "granite", .rope = GgufRope::unless_switched_off},
    A{.name = "granitemoe", .rope = GgufRope::unless_switched_off},
    A{.name = "hunyuan-dense"},
    A{.name = "hunyuan-moe"},
    A{.name = "internlm2"},
    A{.name = "llama"},
    A{.name = "minimax-m2"},
    A{.name = "mistral3"},
    A{.name = "nemotron"},
    A{.name = "olmoe"},
    A{.name = "phi2", .parallel_residual = true},
    A{.name = "phi3"},
    A{.name = "phimoe"},
    A{.name = "qwen2"},
    A{.name = "qwen2moe"},
    A{.name = "qwen2vl"},
    A{.name = "qwen3"},
    A{.name = "qwen3moe"},
    A{.name = "qwen3vl"},
    A{.name = "qwen3vlmoe"},
    A{.name = "seed_oss"},
    A{.name = "smollm3", .rope = GgufRope::not_every_fourth},
    A{.name = "stablelm", .parallel_residual = true},
    A{.name = "starcoder", .rope = GgufRope::none},
    A{.name = "starcoder2"},

    // Attention with windows in some layers.
    A{.name = "cohere2",
      .windows = kThreeOfFourRequired,
      .rope = GgufRope::windowed_only,
      .parallel_residual = true},
    A{.name = "exaone4", .windows = kThreeOfFour, .rope = GgufRope::windowed_only},
    A{.name = "gemma2",
      .windows = {.layers = Layers::all_but_last_of_n, .period = 2, .default_tokens = 4096},
      .scaled_embedding = true,
      .attention_softcap = true,
      .logit_softcap = true},
    A{.name = "gemma3",
      .windows = {.layers = Layers::all_but_last_of_n, .period = 6},
      .scaled_embedding = true},
    A{.name = "gemma3n",
      .windows = {.layers = Layers::all_but_last_of_n, .period = 5, .required = true},
      .shared_kv = GgufSharedKv::from_layer_20,
      .scaled_embedding = true,
      .logit_softcap = true},
    A{.name = "gemma4",
      .windows = kByArray,
      .shared_kv = GgufSharedKv::last_n_by_key,
      .scaled_embedding = true,
      .logit_softcap = true},
    A{.name = "gpt-oss", .windows = kEverySecond},
    A{.name = "granite_swa", .windows = kByArray},
    A{.name = "llama4",
      .windows = {.layers = Layers::all_but_last_of_n,
                  .period = 4,
                  .default_tokens = 8192,
                  .fixed_tokens = 8192,
                  .chunked = true},
      .rope = GgufRope::not_every_fourth},
    A{.name = "mimo2", .windows = kByArray},
    A{.name = "olmo2", .windows = kThreeOfFour},
    A{.name = "smallthinker",
      .windows = {.layers = Layers::all_but_first_of_n, .period = 4, .fixed_tokens = 4096},
      .rope = GgufRope::not_first_of_four},

    // Latent attention.
    A{.name = "deepseek2", .attention = GgufAttention::latent},
    A{.name = "deepseek32", .attention = GgufAttention::latent, .indexer = true},
    A{.name = "glm-dsa", .attention = GgufAttention::latent, .indexer = true},
    A{.name = "mistral4", .attention = GgufAttention::latent},

    // State instead of, between or beside attention.
    A{.name = "falcon-h1",
      .recurrent = GgufRecurrent::mamba2,
      .recurrent_layers = GgufRecurrentLayers::beside_attention},
    A{.name = "granitehybrid",
      .recurrent = GgufRecurrent::mamba2,
      .recurrent_layers = GgufRecurrentLayers::without_kv_heads,
      .rope = GgufRope::unless_switched_off},
    A{.name = "jamba",
      .recurrent = GgufRecurrent::mamba,
      .recurrent_layers = GgufRecurrentLayers::without_kv_heads,
      .rope = GgufRope::none},
    A{.name = "kimi-linear",
      .attention = GgufAttention::latent,
      .recurrent = GgufRecurrent::kda,
      .recurrent_layers = GgufRecurrentLayers::without_kv_heads},
    A{.name = "lfm2",
      .recurrent = GgufRecurrent::short_conv,
      .recurrent_layers = GgufRecurrentLayers::without_kv_heads,
      .output_norm = "token_embd_norm"},
    A{.name = "lfm2moe",
      .recurrent = GgufRecurrent::short_conv,
      .recurrent_layers = GgufRecurrentLayers::without_kv_heads,
      .output_norm = "token_embd_norm"},
    A{.name = "mamba", .recurrent = GgufRecurrent::mamba, .rope = GgufRope::none},
    A{.name = "mamba2", .recurrent = GgufRecurrent::mamba2, .rope = GgufRope::none},
    A{.name = "nemotron_h",
      .recurrent = GgufRecurrent::mamba2,
      .recurrent_layers = GgufRecurrentLayers::without_kv_heads_and_ff,
      .rope = GgufRope::none},
    A{.name = "nemotron_h_moe",
      .recurrent = GgufRecurrent::mamba2,
      .recurrent_layers = GgufRecurrentLayers::without_kv_heads_and_ff,
      .rope = GgufRope::none},
    A{.name = "qwen35",
      .recurrent = GgufRecurrent::gated_delta_net,
      .recurrent_layers = GgufRecurrentLayers::all_but_every_nth},
    A{.name = "qwen35moe",
      .recurrent = GgufRecurrent::gated_delta_net,
      .recurrent_layers = GgufRecurrentLayers::all_but_every_nth},
    A{.name = "qwen3next",
      .recurrent = GgufRecurrent::gated_delta_net,
      .recurrent_layers = GgufRecurrentLayers::all_but_every_nth},
});

struct Refused {
  std::string_view name;
  std::string_view what;
};

// Files that are no decoder: refused by what they are.
constexpr auto kRefused = std::to_array<Refused>({
    {"bert", "an encoder, which keeps no cache"},
    {"clip", "a vision or audio part, not a language model"},
    {"eurobert", "an encoder, which keeps no cache"},
    {"gemma-embedding", "an encoder, which keeps no cache"},
    {"jina-bert-v2", "an encoder, which keeps no cache"},
    {"jina-bert-v3", "an encoder, which keeps no cache"},
    {"llama-embed", "an encoder, which keeps no cache"},
    {"modern-bert", "an encoder, which keeps no cache"},
    {"neo-bert", "an encoder, which keeps no cache"},
    {"nomic-bert", "an encoder, which keeps no cache"},
    {"nomic-bert-moe", "an encoder, which keeps no cache"},
    {"t5", "an encoder and decoder, which is not planned for"},
    {"t5encoder", "an encoder, which keeps no cache"},
    {"wavtokenizer-dec", "an audio decoder, not a language model"},
});

}  // namespace

std::span<const GgufArchitecture> gguf_architectures() {
  return kArchitectures;
}

const GgufArchitecture& gguf_architecture(std::string_view name, const std::string& where) {
  const auto* const row = std::ranges::find(kArchitectures, name, &GgufArchitecture::name);
  if (row != kArchitectures.end()) {
    return *row;
  }
  const std::string allowed = "one of " + std::to_string(kArchitectures.size()) +
                              " decoder architectures such as llama, qwen3moe or deepseek2";
  const auto* const refused = std::ranges::find(kRefused, name, &Refused::name);
  if (refused != kRefused.end()) {
    throw Unsupported(where, in_quotes(name) + " is " + std::string(refused->what), allowed);
  }
  throw Unsupported(where, in_quotes(name) + " is not known", allowed);
}

}  // namespace kvfathom
