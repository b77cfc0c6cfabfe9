// The vocabulary of the Hugging Face translation tables: one row per model_type, and the pieces
// that families share. Internal to model/io.
//
// Field names and class defaults follow the `transformers` configuration classes; architecture
// names are those that llama.cpp's converter chooses for the same class.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/io/json_reader.h"

namespace kvfathom::hf {

/// One row of a table: what a model_type is called in GGUF and how its fields are read.
struct Family {
  std::string_view model_type;
  std::string_view architecture;
  void (*translate)(const Reader& config, ModelSpec& model);
};

/// The tables, one per file of this folder.
[[nodiscard]] std::span<const Family> dense_families();
[[nodiscard]] std::span<const Family> gemma_families();
[[nodiscard]] std::span<const Family> moe_families();
[[nodiscard]] std::span<const Family> latent_families();
[[nodiscard]] std::span<const Family> hybrid_families();
[[nodiscard]] std::span<const Family> recurrent_families();
[[nodiscard]] std::span<const Family> classic_families();

// ---- Ranges: wide enough for any model, narrow enough that no product overflows --------------

inline constexpr Range kLayers{1, 2048};
inline constexpr Range kHeads{1, 4096};
inline constexpr Range kHeadDim{1, 4096};
inline constexpr Range kWidth{1, std::int64_t{1} << 20};
inline constexpr Range kVocab{1, std::int64_t{1} << 24};
inline constexpr Range kTokens{1, std::int64_t{1} << 30};
inline constexpr Range kExperts{1, 8192};
inline constexpr Range kMaybeNone{0, std::int64_t{1} << 20};  ///< a width or number that may be 0

// ---- Pieces ----------------------------------------------------------------------------------

/// hidden_size, vocab_size, trained context, tied embeddings.
void read_shape(const Reader& config, ModelSpec& model, bool tied_by_default);
/// num_hidden_layers, each a copy of `layer`.
void repeat(const Reader& config, ModelSpec& model, const LayerSpec& layer);
[[nodiscard]] std::int64_t layer_count(const Reader& config);

/// Heads and widths by the usual names; biases from `attention_bias`.
[[nodiscard]] Attention read_attention(const Reader& config);
/// The rotated part of a head: partial_rotary_factor, rotary_dim, or all of it.
[[nodiscard]] std::int64_t rope_dim_of(const Reader& config, std::int64_t head_dim);
[[nodiscard]] LatentAttention read_latent_attention(const Reader& config);
[[nodiscard]] DenseFeedForward read_dense(const Reader& config);

/// Names under which a family keeps the numbers of its mixture of experts.
struct ExpertKeys {
  const char* n_experts = "num_experts";
  const char* n_experts_per_token = "num_experts_per_tok";
  const char* n_shared_experts = nullptr;  ///< shared experts of the routed width each
  const char* intermediate_size = "moe_intermediate_size";
  const char* shared_intermediate_size = nullptr;  ///< their width in all, where it is stated
};
/// A value that is a list is taken at `layer`.
[[nodiscard]] MixtureOfExperts read_experts(const Reader& config,
                                            const ExpertKeys& keys,
                                            std::size_t layer = 0);

/// How a family's class routes where its config is silent.
struct Routing {
  ExpertGating gating = ExpertGating::softmax;
  bool normalise_weights = false;
  double weights_scale = 1.0;
  std::int64_t n_groups = 1;
  std::int64_t n_groups_used = 1;
};
/// The routing of DeepSeek-V3's descendants that have no groups.
inline constexpr Routing kSigmoidNormalised{.gating = ExpertGating::sigmoid,
                                            .normalise_weights = true};
/// The routing of Mixtral's kin: softmax, and weights that sum to one.
inline constexpr Routing kSoftmaxNormalised{.normalise_weights = true};

/// Names under which a config keeps its routing; nullptr: the class decides.
struct RoutingKeys {
  const char* normalise_weights = "norm_topk_prob";
  const char* weights_scale = "routed_scaling_factor";
};
/// Fills in how `moe` routes: from the config, and by `defaults` where it is silent.
void read_routing(const Reader& config,
                  MixtureOfExperts& moe,
                  const Routing& defaults,
                  const RoutingKeys& keys = {});
/// Takes the routing of a class that leaves its config no choice.
void set_routing(MixtureOfExperts& moe, const Routing& routing);

/// The value of a field that is one number or a list with one per layer.
[[nodiscard]] std::int64_t per_layer(const Reader& config,
                                     const char* key,
                                     std::size_t layer,
                                     Range allowed);

/// A layer with the norms of a plain pre-norm transformer.
[[nodiscard]] LayerSpec layer_of(const Mixer& mixer, const FeedForward& feed_forward);

/// The entries of `layer_types` (or another list of one name per layer); its length is checked.
/// Extra entries for multi-token-prediction layers may follow and are dropped.
[[nodiscard]] std::vector<std::string> names_per_layer(const Reader& config,
                                                       const char* key,
                                                       std::int64_t n_layers);
/// The same for a list of numbers.
[[nodiscard]] std::vector<std::int64_t> numbers_per_layer(const Reader& config,
                                                          const char* key,
                                                          std::int64_t n_layers,
                                                          Range allowed);
/// Gives `window` to every attention layer whose `layer_types` entry is sliding.
void apply_layer_types(const Reader& config, ModelSpec& model, std::int64_t window);

/// Granite divides its logits by `logits_scaling`.
[[nodiscard]] double granite_logit_scale(const Reader& config);

/// Adds `n` multi-token-prediction layers like `layer` to the extras: each with its two input
/// norms, its 2d x d projection, a head norm, and an embedding and head of its own where the
/// checkpoint repeats them (DeepSeek-V3 and what descends from it).
void add_mtp(ModelSpec& model, const LayerSpec& layer, std::int64_t n, bool own_embeddings);

[[nodiscard]] inline Attention* attention_of(LayerSpec& layer) {
  return std::get_if<Attention>(&layer.mixer);
}

}  // namespace kvfathom::hf
