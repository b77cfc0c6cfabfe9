#include "model/engine/llama_cpp/graph/vision_builder.h"

#include <algorithm>

namespace kvfathom::llama_cpp {
namespace {

constexpr std::int64_t kFloatBytes = 4;
constexpr std::int64_t kChannels = 3;

}  // namespace

VisionBuilder::VisionBuilder(const ProjectorSpec& projector,
                             const EncoderInput& input,
                             bool rms_norm,
                             bool flash_attention)
    : spec(projector),
      side(input.side),
      n_patches(input.n_positions),
      width(projector.hidden_size),
      rms_norm_(rms_norm),
      flash_attention_(flash_attention),
      head_dim_(projector.hidden_size / projector.n_heads) {
  for (const Tensor& t : projector.tensors) {
    names_.insert(t.name);
  }
}

const Tensor* VisionBuilder::stored(std::string_view name) const {
  const auto found = std::ranges::find(spec.tensors, name, &Tensor::name);
  return found == spec.tensors.end() ? nullptr : &*found;
}

std::int64_t VisionBuilder::rows_of(std::string_view name) const {
  const Tensor* const t = stored(name);
  return t == nullptr ? width : t->shape[1];
}

std::string VisionBuilder::block(std::int64_t layer, std::string_view part) const {
  return (spec.modality == Modality::audio ? "a.blk." : "v.blk.") + std::to_string(layer) + "." +
         std::string(part);
}

TensorId VisionBuilder::raw_image() {
  const std::int64_t pixels = side * spec.patch_pixels;
  return graph.input(DType::f32, {pixels, pixels, kChannels, 1});
}

TensorId VisionBuilder::patches(TensorId raw, std::string_view kernel) {
  const Tensor* const t = stored(kernel);
  const DType type = t == nullptr ? DType::f16 : t->dtype;
  const std::int64_t values = kChannels * spec.patch_pixels * spec.patch_pixels;
  const TensorId columns =
      graph.operation(Op::cont, type, {values, side, side, 1}, {weight(), raw});
  const TensorId flat = graph.reshape(columns, {values, n_patches, 1, 1});
  const TensorId matrix = graph.placed(type, {values, width, 1, 1}, Placement::device, true);
  const TensorId product =
      graph.operation(Op::mul_mat, DType::f32, {n_patches, width, 1, 1}, {flat, matrix});
  return graph.cont(graph.permute(graph.reshape(product, {side, side, 1, width}), 0, 1, 3, 2));
}

TensorId VisionBuilder::embedded_image(TensorId raw) {
  TensorId t = graph.reshape(patches(raw, "v.patch_embd.weight"), {n_patches, width, 1, 1});
  t = graph.cont(graph.transpose(t));
  return has("v.patch_embd.bias") ? graph.add(t, weight()) : t;
}

TensorId VisionBuilder::norm(TensorId x, const std::string& name) {
  TensorId t = graph.like(rms_norm_ ? Op::rms_norm : Op::norm, x);
  t = has(name + ".weight") ? graph.mul(t, weight()) : t;
  return has(name + ".bias") ? graph.add(t, weight()) : t;
}

TensorId VisionBuilder::linear(TensorId x, std::int64_t n_out, const std::string& name) {
  const bool clamps = has(name + ".input_max");
  TensorId t = graph.project(clamps ? graph.clamp(x) : x, n_out);
  t = clamps ? graph.clamp(t) : t;
  return has(name + ".bias") ? graph.add(t, weight()) : t;
}

TensorId VisionBuilder::feed_forward(TensorId x,
                                     const std::string& up,
                                     const std::string& gate,
                                     const std::string& down) {
  const std::int64_t n_wide = rows_of(up + ".weight");
  TensorId t = linear(x, n_wide, up);
  t = has(gate + ".weight") ? graph.glu(linear(x, n_wide, gate), t) : graph.unary(t);
  return linear(t, rows_of(down + ".weight"), down);
}

TensorId VisionBuilder::perceptron(TensorId x,
                                   const std::string& first,
                                   const std::string& second) {
  return feed_forward(x, first, "", second);
}

TensorId VisionBuilder::layer_feed_forward(std::int64_t layer, TensorId x) {
  return feed_forward(
      x, block(layer, "ffn_up"), block(layer, "ffn_gate"), block(layer, "ffn_down"));
}

TensorId VisionBuilder::heads_of(TensorId x) {
  return graph.reshape(x, {head_dim_, spec.n_heads, n_patches, 1});
}

/// One of q, k and v of a fused product.
TensorId VisionBuilder::part_of(TensorId fused, std::int64_t index) {
  const Affine row = graph[fused].nb[1];
  return graph.view(fused,
                    {head_dim_, spec.n_heads, n_patches, 1},
                    {kFloatBytes, kFloatBytes * head_dim_, row, row * n_patches},
                    kFloatBytes * width * index);
}

VisionBuilder::Heads VisionBuilder::project_heads(std::int64_t layer, TensorId x) {
  if (has(block(layer, "attn_qkv.weight"))) {
    const TensorId fused = linear(x, 3 * width, block(layer, "attn_qkv"));
    return {part_of(fused, 0), part_of(fused, 1), part_of(fused, 2)};
  }
  return {heads_of(linear(x, width, block(layer, "attn_q"))),
          heads_of(linear(x, width, block(layer, "attn_k"))),
          heads_of(linear(x, width, block(layer, "attn_v")))};
}

TensorId VisionBuilder::attend(std::int64_t layer, const Heads& heads, TensorId mask) {
  for (const TensorId t : {heads.q, heads.k, heads.v}) {
    graph.expand(t);
  }
  const TensorId q = graph.permute(heads.q, 0, 2, 1, 3);
  const TensorId k = graph.permute(heads.k, 0, 2, 1, 3);
  TensorId t = kNoTensor;
  if (flash_attention_) {
    const TensorId k16 = graph.cast(k, DType::f16);
    const TensorId v16 = graph.cast(graph.permute(heads.v, 0, 2, 1, 3), DType::f16);
    const Extents ne{head_dim_, spec.n_heads, n_patches, 1};
    t = graph.operation(Op::flash_attention, DType::f32, ne, {q, k16, v16, mask});
    t = graph.reshape(t, {width, n_patches, 1, 1});
  } else {
    const TensorId v = graph.cont(graph.permute(heads.v, 1, 2, 0, 3));
    const TensorId scores = graph.like(Op::soft_max, graph.mul_mat(k, q), {mask});
    t = graph.permute(graph.mul_mat(v, scores), 0, 2, 1, 3);
    t = graph.cont(t, {width, n_patches, 1, 1});
  }
  return linear(t, width, block(layer, "attn_out"));
}

/// build_rope_2d: each half of a head by its own positions.
TensorId VisionBuilder::rotated_2d(TensorId x,
                                   TensorId first_positions,
                                   TensorId second_positions) {
  const Extents strides = graph[x].nb;
  const Extents half{head_dim_ / 2, spec.n_heads, n_patches, 1};
  const TensorId first = graph.view(x, half, strides);
  const TensorId second = graph.view(x, half, strides, kFloatBytes * (head_dim_ / 2));
  return graph.concat(graph.like(Op::rope, first, {first_positions}),
                      graph.like(Op::rope, second, {second_positions}),
                      0);
}

TensorId VisionBuilder::vit_layer(std::int64_t layer,
                                  TensorId x,
                                  TensorId first_positions,
                                  TensorId second_positions) {
  const auto if_stored = [&](std::string_view part, TensorId t) {
    return has(block(layer, part) + ".weight") ? norm(t, block(layer, part)) : t;
  };
  const auto scaled = [&](std::string_view part, TensorId t) {
    return has(block(layer, part) + ".weight") ? graph.mul(t, weight()) : t;
  };
  Heads h = project_heads(layer, norm(x, block(layer, "ln1")));
  h.q = if_stored("attn_q_norm", h.q);
  h.k = if_stored("attn_k_norm", h.k);
  if (first_positions != kNoTensor) {
    h.q = rotated_2d(h.q, first_positions, second_positions);
    h.k = rotated_2d(h.k, first_positions, second_positions);
  }
  h.v = spec.type == "gemma4v" ? graph.rms_norm(h.v) : h.v;
  TensorId t = scaled("ls1", attend(layer, h, kNoTensor));
  const TensorId middle = graph.add(if_stored("attn_post_norm", t), x);
  t = layer_feed_forward(layer, norm(middle, block(layer, "ln2")));
  t = graph.add(middle, scaled("ls2", if_stored("ffn_post_norm", t)));
  return scaled("out_scale", t);
}

TensorId VisionBuilder::layers(TensorId x, TensorId first_positions, TensorId second_positions) {
  const std::string name = spec.modality == Modality::audio ? "a.pre_ln" : "v.pre_ln";
  x = has(name + ".weight") ? norm(x, name) : x;
  for (std::int64_t layer = 0; layer < spec.n_layers; ++layer) {
    graph.set_layer(layer);
    x = vit_layer(layer, x, first_positions, second_positions);
  }
  graph.set_layer(spec.n_layers);
  return x;
}

TensorId VisionBuilder::post_norm(TensorId x) {
  const std::string name = spec.modality == Modality::audio ? "a.post_ln" : "v.post_ln";
  return has(name + ".weight") ? norm(x, name) : x;
}

TensorId VisionBuilder::tower(TensorId x, TensorId first_positions, TensorId second_positions) {
  return post_norm(layers(x, first_positions, second_positions));
}

TensorId VisionBuilder::pooled(TensorId x, std::int64_t patches_of_a_side) {
  const std::int64_t out = side / patches_of_a_side;
  const TensorId grid = graph.cont(graph.transpose(x), {side, side, width, 1});
  const TensorId t = graph.operation(Op::cont, DType::f32, {out, out, width, 1}, {grid});
  return graph.cont(graph.transpose(graph.reshape(t, {out * out, width, 1, 1})));
}

}  // namespace kvfathom::llama_cpp
