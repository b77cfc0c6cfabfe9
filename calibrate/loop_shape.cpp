#include "calibrate/loop_shape.h"

#include <array>
#include <optional>
#include <string>

#include "model/architecture/tensor_inventory.h"
#include "model/error.h"

namespace kvfathom::calibrate {
namespace {

/// Throws where a part of the model is none that a loop has.
class Parts {
 public:
  explicit Parts(const ModelSpec& model) : model_(&model) {}

  void require(bool is_known, const std::string& part) const {
    if (!is_known) {
      throw Unsupported(model_->name,
                        "our CPU kernels run no whole layer with " + part,
                        "they run grouped-query attention with a gated feed-forward or routed "
                        "experts, in 16 bits");
    }
  }

 private:
  const ModelSpec* model_;
};

void require_attention(const Parts& parts, const Attention& a) {
  constexpr std::array<std::int64_t, 6> kHeadDims{64, 80, 96, 128, 192, 256};
  bool is_built = false;
  for (const std::int64_t dim : kHeadDims) {
    is_built = is_built || a.head_dim == dim;
  }
  parts.require(is_built && a.v_head_dim == a.head_dim,
                "heads of " + std::to_string(a.head_dim) + " values");
  parts.require(a.rope_dim == a.head_dim, "heads that are not rotated as a whole");
  parts.require(!a.window_tokens, "a window");
  parts.require(!a.sinks && !a.indexer && !a.v_is_k && a.kv_lora_rank == 0 && a.q_lora_rank == 0,
                "sinks, an indexer or latents");
  parts.require(!a.output_gate && a.gate_width == 0, "a gate on attention");
}

Mixer mixer_of(const LoopShape& shape) {
  if (const LoopLatents& of = shape.latents; of.kv_lora_rank > 0) {
    return LatentAttention{.n_heads = shape.n_heads,
                           .kv_lora_rank = of.kv_lora_rank,
                           .qk_nope_head_dim = of.qk_nope_head_dim,
                           .qk_rope_head_dim = of.qk_rope_head_dim,
                           .v_head_dim = of.v_head_dim};
  }
  return Attention{.n_heads = shape.n_heads,
                   .n_kv_heads = shape.n_kv_heads,
                   .head_dim = shape.head_dim,
                   .v_head_dim = shape.head_dim,
                   .window_tokens = shape.window_tokens > 0
                                        ? std::optional<std::int64_t>(shape.window_tokens)
                                        : std::nullopt,
                   .rope_dim = shape.head_dim};
}

}  // namespace

ModelSpec spec_of(const LoopShape& shape) {
  ModelSpec model;
  model.name = "random";
  model.architecture = "llama";
  model.hidden_size = shape.hidden_size;
  model.vocab_size = shape.vocab_size;
  model.weight_dtype = DType::bf16;
  LayerSpec layer;
  layer.mixer = mixer_of(shape);
  if (shape.n_experts > 0) {
    layer.feed_forward = MixtureOfExperts{.n_experts = shape.n_experts,
                                          .n_experts_per_token = shape.n_chosen,
                                          .intermediate_size = shape.intermediate_size};
  } else {
    layer.feed_forward = DenseFeedForward{.intermediate_size = shape.intermediate_size};
  }
  model.layers.assign(static_cast<std::size_t>(shape.n_layers), layer);
  model.tensors = tensor_inventory(model);
  return model;
}

LoopShape loop_shape_of(const ModelSpec& model) {
  const Parts parts(model);
  parts.require(!model.layers.empty(), "no layer");
  const LayerSpec& layer = model.layers.front();
  for (const LayerSpec& other : model.layers) {
    parts.require(other == layer, "others that differ from it");
  }
  const DType weights = model.weight_dtype.value_or(DType::bf16);
  parts.require(weights == DType::bf16 || weights == DType::f16,
                "weights in " + std::string(name(weights)));
  parts.require(model.norm == NormKind::rms && layer.pre_mixer_norm &&
                    layer.pre_feed_forward_norm && !layer.post_mixer_norm &&
                    !layer.post_feed_forward_norm && !layer.parallel_residual,
                "other norms than two of the mean square, one before each half");
  parts.require(
      model.altup_inputs == 0 && model.laurel_rank == 0 && model.per_layer_embedding_size == 0,
      "side streams");
  const auto* attention = std::get_if<Attention>(&layer.mixer);
  parts.require(attention != nullptr, "a mixer that is not plain attention");
  require_attention(parts, *attention);
  LoopShape shape{.hidden_size = static_cast<int>(model.hidden_size),
                  .n_layers = static_cast<int>(n_layers(model)),
                  .n_heads = static_cast<int>(attention->n_heads),
                  .n_kv_heads = static_cast<int>(attention->n_kv_heads),
                  .head_dim = static_cast<int>(attention->head_dim),
                  .vocab_size = static_cast<int>(model.vocab_size)};
  if (const auto* dense = std::get_if<DenseFeedForward>(&layer.feed_forward)) {
    parts.require(dense->gated, "a feed-forward without a gate");
    shape.intermediate_size = static_cast<int>(dense->intermediate_size);
    return shape;
  }
  const auto* experts = std::get_if<MixtureOfExperts>(&layer.feed_forward);
  parts.require(experts != nullptr, "no feed-forward");
  parts.require(experts->gated && experts->shared_intermediate_size == 0 &&
                    experts->latent_size == 0 && experts->dense_intermediate_size == 0,
                "shared, narrow or ungated experts");
  shape.intermediate_size = static_cast<int>(experts->intermediate_size);
  shape.n_experts = static_cast<int>(experts->n_experts);
  shape.n_chosen = static_cast<int>(experts->n_experts_per_token);
  return shape;
}

double layer_weight_bytes(const LoopShape& shape) {
  const double hidden = shape.hidden_size;
  const double heads = 2.0 * shape.n_heads + 2.0 * shape.n_kv_heads;  // q, output, k and v
  const double stack = std::max(1, shape.n_experts);
  return 2.0 * hidden * (heads * shape.head_dim + 3.0 * stack * shape.intermediate_size);
}

}  // namespace kvfathom::calibrate
