#include "model/engine/llama_cpp/graph/vision.h"

#include <algorithm>
#include <array>
#include <string>

#include "model/engine/llama_cpp/graph/vision_builder.h"

namespace kvfathom::llama_cpp {
namespace {

TensorId gemma3(VisionBuilder& b, std::int64_t merge) {
  TensorGraph& g = b.graph;
  const TensorId embedded = g.add(b.embedded_image(b.raw_image()), b.weight());
  const TensorId x = b.pooled(b.tower(embedded, kNoTensor, kNoTensor), merge);
  const TensorId normed = g.mul(g.rms_norm(x), b.weight());
  const Tensor* const matrix = b.stored("mm.input_projection.weight");
  const std::int64_t n_out = matrix == nullptr ? b.width : matrix->shape[0];  // stored transposed
  const DType type = matrix == nullptr ? DType::f16 : matrix->dtype;
  const TensorId turned = g.operation(Op::cont, type, {b.width, n_out, 1, 1}, {b.weight()});
  return g.mul_mat(turned, normed);
}

TensorId gemma4(VisionBuilder& b, std::int64_t merge) {
  TensorGraph& g = b.graph;
  TensorId t = b.embedded_image(g.scale(b.raw_image()));
  const TensorId columns = g.input(DType::i32, {b.n_patches, 1, 1, 1});
  const TensorId rows = g.input(DType::i32, {b.n_patches, 1, 1, 1});
  const Extents ne{b.width, b.n_patches, 1, 1};
  t = g.add(t, g.operation(Op::get_rows, DType::f32, ne, {b.weight(), columns}));
  t = g.add(t, g.operation(Op::get_rows, DType::f32, ne, {b.weight(), rows}));
  t = g.scale(b.pooled(b.tower(t, columns, rows), merge));
  if (b.has("v.std_bias") && b.has("v.std_scale")) {
    t = g.mul(g.like(Op::sub, t, {b.weight()}), b.weight());
  }
  return b.linear(g.rms_norm(t), b.rows_of("mm.input_projection.weight"), "mm.input_projection");
}

/// Columns of squares of patches, and a matrix over each.
TensorId merged_patches(VisionBuilder& b, TensorId x, std::int64_t merge) {
  TensorGraph& g = b.graph;
  const std::int64_t out = b.side / merge;
  const std::int64_t values = b.width * merge * merge;
  TensorId t = g.mul(g.rms_norm(x), b.weight());
  t = g.cont(g.permute(g.reshape(t, {b.width, b.side, b.side, 1}), 2, 0, 1, 3));
  const TensorId kernel = g.view(t, {merge, merge, b.width, 1}, {4, 0, 0, 0});  // only its shape
  t = g.operation(Op::cont, DType::f32, {values, out, out, 1}, {kernel, t});
  return g.project(g.reshape(t, {values, out * out, 1, 1}), b.rows_of("mm.patch_merger.weight"));
}

TensorId pixtral(VisionBuilder& b, std::int64_t merge) {
  TensorGraph& g = b.graph;
  const TensorId rows = g.input(DType::i32, {b.n_patches, 1, 1, 1});
  const TensorId columns = g.input(DType::i32, {b.n_patches, 1, 1, 1});
  TensorId t = b.tower(b.embedded_image(b.raw_image()), rows, columns);
  t = b.has("mm.patch_merger.weight") ? merged_patches(b, t, merge) : t;
  t = b.perceptron(t, "mm.1", "mm.2");
  if (b.has("v.token_embd.img_break")) {  // one more token behind each row
    const std::int64_t out = b.side / merge;
    const Affine n = g[t].ne[0];
    TensorId end = g.operation(Op::none, DType::f32, {n, 1, out, 1}, {});
    end = g.add(g.scale(end), b.weight());
    t = g.concat(g.reshape(t, {n, out, out, 1}), end, 1);
  }
  return t;
}

/// The learned table of n x n positions, resized to the image.
TensorId position_table(VisionBuilder& b, const Tensor& table) {
  TensorGraph& g = b.graph;
  std::int64_t n = 1;
  while ((n + 1) * (n + 1) <= table.shape[1]) {
    ++n;
  }
  TensorId t = g.placed(DType::f32, {b.width, n * n, 1, 1}, Placement::device, true);
  if (n == b.side) {
    return t;
  }
  t = g.permute(g.reshape(t, {b.width, n, n, 1}), 2, 0, 1, 3);
  t = g.operation(Op::cont, DType::f32, {b.side, b.side, b.width, 1}, {t});
  return g.cont(g.permute(t, 1, 2, 0, 3), {b.width, b.n_patches, 1, 1});
}

/// Two convolutions (of two frames), then squares of patches made neighbours.
TensorId qwen_input(VisionBuilder& b) {
  TensorGraph& g = b.graph;
  const TensorId raw = b.raw_image();
  const TensorId first = b.patches(raw, "v.patch_embd.weight");
  const TensorId both = g.add(first, b.patches(raw, "v.patch_embd.weight.1"));
  const auto neighbours = [&](TensorId t) {
    t = g.cont(t, {b.width * 2, b.side / 2, b.side, 1});
    t = g.permute(g.reshape(t, {b.width * 2, b.side / 2, 2, b.side / 2}), 0, 2, 1, 3);
    return g.cont(t, {b.width, b.n_patches, 1, 1});
  };
  TensorId t = neighbours(g.permute(both, 1, 2, 0, 3));
  t = b.has("v.patch_embd.bias") ? g.add(t, b.weight()) : t;
  const Tensor* const table = b.stored("v.position_embd.weight");
  return table == nullptr ? t : g.add(t, neighbours(position_table(b, *table)));
}

TensorId qwen_layer(
    VisionBuilder& b, std::int64_t layer, TensorId x, TensorId positions, TensorId mask) {
  TensorGraph& g = b.graph;
  VisionBuilder::Heads h = b.project_heads(layer, b.norm(x, b.block(layer, "ln1")));
  h.q = g.like(Op::rope, h.q, {positions});
  h.k = g.like(Op::rope, h.k, {positions});
  const TensorId middle = g.add(b.attend(layer, h, mask), x);
  const TensorId normed = b.norm(middle, b.block(layer, "ln2"));
  return g.add(middle, b.layer_feed_forward(layer, normed));
}

/// Features of some layers, which go beside the tokens: with those of `before`.
TensorId deepstack(VisionBuilder& b, std::int64_t layer, TensorId x, TensorId before) {
  const std::string name = "v.deepstack." + std::to_string(layer) + ".";
  if (!b.has(name + "fc1.weight")) {
    return before;
  }
  TensorGraph& g = b.graph;
  TensorId t = g.reshape(x, {b.width * 4, b.n_patches / 4, 1, 1});
  t = b.perceptron(b.norm(t, name + "norm"), name + "fc1", name + "fc2");
  return before == kNoTensor ? t : g.concat(before, t, 0);
}

/// Squares of patches in another order, for windows to be neighbours, and back.
TensorId reordered(VisionBuilder& b, TensorId x) {
  TensorGraph& g = b.graph;
  const TensorId order = g.input(DType::i32, {b.n_patches / 4, 1, 1, 1});
  const Affine values = g[x].ne[0] * divide(g[x].ne[1], b.n_patches / 4).constant;
  return g.get_rows(g.reshape(x, {values, b.n_patches / 4, 1, 1}), order);
}

TensorId qwen(VisionBuilder& b, bool flash_attention) {
  TensorGraph& g = b.graph;
  TensorId x = qwen_input(b);
  const TensorId positions = g.input(DType::i32, {b.n_patches * 4, 1, 1, 1});
  const std::int64_t period = b.spec.full_attention_period;
  TensorId window = kNoTensor;
  if (period > 0) {
    window = g.input(DType::f32, {b.n_patches, b.n_patches, 1, 1});
    window = flash_attention ? g.cast(window, DType::f16) : window;
    x = g.reshape(reordered(b, x), {b.width, b.n_patches, 1, 1});
  }
  TensorId features = kNoTensor;
  for (std::int64_t layer = 0; layer < b.spec.n_layers; ++layer) {
    g.set_layer(layer);
    const bool sees_all = period == 0 || (layer + 1) % period == 0;
    x = qwen_layer(b, layer, x, positions, sees_all ? kNoTensor : window);
    features = deepstack(b, layer, x, features);
  }
  g.set_layer(b.spec.n_layers);
  x = b.has("v.post_ln.weight") ? b.norm(x, "v.post_ln") : x;
  TensorId t = b.perceptron(g.reshape(x, {b.width * 4, b.n_patches / 4, 1, 1}), "mm.0", "mm.2");
  t = period > 0 ? reordered(b, t) : t;
  return features == kNoTensor ? t : g.concat(t, features, 0);
}

/// What one type has of its own.
struct Family {
  std::string_view type;
  std::int64_t warm_up_tokens = 0;  ///< of a side (set_warmup_n_tokens); 0: the image's own size
  std::int64_t merged_patches = 1;  ///< of a side, unless the file says so
  bool rms_norm = false;
};

constexpr auto kFamilies = std::to_array<Family>({
    {.type = "gemma3", .merged_patches = 4},
    {.type = "gemma4v", .warm_up_tokens = 16, .merged_patches = 3, .rms_norm = true},
    {.type = "pixtral", .warm_up_tokens = 16, .rms_norm = true},
    {.type = "qwen2vl_merger", .warm_up_tokens = 46, .merged_patches = 2},
    {.type = "qwen2.5vl_merger", .warm_up_tokens = 46, .merged_patches = 2, .rms_norm = true},
    {.type = "qwen3vl_merger", .warm_up_tokens = 46, .merged_patches = 2},
});

const Family* family_of(const ProjectorSpec& projector) {
  const auto* const row = std::ranges::find(kFamilies, projector.type, &Family::type);
  return row == kFamilies.end() ? nullptr : row;
}

std::int64_t merge_of(const ProjectorSpec& projector, const Family& family) {
  return projector.merged_patches > 0 ? projector.merged_patches : family.merged_patches;
}

}  // namespace

std::optional<std::int64_t> warm_up_pixels(const ProjectorSpec& projector) {
  const Family* const family = family_of(projector);
  if (family == nullptr || (family->warm_up_tokens == 0 && projector.image_pixels == 0)) {
    return std::nullopt;
  }
  return family->warm_up_tokens == 0
             ? projector.image_pixels
             : family->warm_up_tokens * projector.patch_pixels * merge_of(projector, *family);
}

TensorGraph vision_graph(const ProjectorSpec& projector, bool flash_attention) {
  const Family& family = *family_of(projector);
  const std::int64_t merge = merge_of(projector, family);
  const std::int64_t side = warm_up_pixels(projector).value() / projector.patch_pixels;
  VisionBuilder b(projector, {side, side * side}, family.rms_norm, flash_attention);
  const TensorId out = projector.type == "gemma3"    ? gemma3(b, merge)
                       : projector.type == "gemma4v" ? gemma4(b, merge)
                       : projector.type == "pixtral" ? pixtral(b, merge)
                                                     : qwen(b, flash_attention);
  b.graph.expand(out);
  return std::move(b.graph);
}

}  // namespace kvfathom::llama_cpp
