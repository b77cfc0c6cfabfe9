#include "model/engine/llama_cpp/graph/conformer.h"

#include <string>

#include "model/rounding.h"

namespace kvfathom::llama_cpp {
namespace {

using std::int64_t;

constexpr int64_t kFloatBytes = 4;
constexpr int64_t kChunk = 12;
constexpr int64_t kPast = 12;
constexpr int64_t kSeen = kChunk + kPast;
constexpr int64_t kDistances = kPast + 1;
constexpr int64_t kTaps = 4;  // of the depthwise convolution, before a position

/// One layer's place, and what all layers share.
struct Place {
  VisionBuilder& b;
  int64_t layer = 0;
  TensorId distances = kNoTensor;  ///< embeddings of relative positions
  TensorId mask = kNoTensor;

  [[nodiscard]] std::string name(std::string_view part) const { return b.block(layer, part); }
  [[nodiscard]] int64_t heads() const { return b.spec.n_heads; }
  [[nodiscard]] int64_t head_dim() const { return b.width / b.spec.n_heads; }
  [[nodiscard]] int64_t blocks() const { return divide_up(b.n_patches, kChunk); }
};

/// Frequencies first: [bands, frames, channels], both halved by a convolution of 3 x 3.
TensorId halved(VisionBuilder& b, TensorId x, int index) {
  TensorGraph& g = b.graph;
  const std::string name = "a.conv1d." + std::to_string(index);
  const Tensor* const kernel = b.stored(name + ".weight");
  const DType type = kernel == nullptr ? DType::f32 : kernel->dtype;
  const int64_t channels = kernel == nullptr ? 128 : kernel->shape[3];
  const Affine bands = divide(g[x].ne[0], 2);
  const Affine frames = divide(g[x].ne[1], 2);
  const Affine values = g[x].ne[2] * 9;
  const TensorId columns = g.operation(Op::cont, type, {values, bands, frames, 1}, {b.weight(), x});
  const Affine places = bands.constant * frames;
  const TensorId flat = g.reshape(columns, {values, places, 1, 1});
  const TensorId matrix = g.placed(type, {values, channels, 1, 1}, Placement::device, true);
  TensorId t = g.operation(Op::mul_mat, DType::f32, {places, channels, 1, 1}, {flat, matrix});
  t = g.cont(g.permute(g.reshape(t, {bands, frames, 1, channels}), 0, 1, 3, 2));
  t = b.has(name + ".bias") ? g.add(t, b.weight()) : t;
  if (b.has(name + ".norm.weight")) {  // over the channels
    t = g.mul(g.like(Op::norm, g.cont(g.permute(t, 1, 2, 0, 3))), b.weight());
    t = g.cont(g.permute(t, 2, 0, 1, 3));
  }
  return g.unary(t);
}

TensorId subsampled(VisionBuilder& b, int64_t n_frames) {
  TensorGraph& g = b.graph;
  const TensorId raw = g.input(DType::f32, {n_frames, b.spec.mel_bands, 1, 1});
  TensorId t = halved(b, halved(b, g.cont(g.transpose(raw)), 0), 1);
  const Affine values = g[t].ne[0].constant * g[t].ne[2];
  t = g.cont(g.permute(t, 1, 2, 0, 3));
  return b.linear(g.reshape(t, {values, b.n_patches, 1, 1}), b.width, "a.input_projection");
}

/// Half of what a feed-forward gives is added.
TensorId half_fed(const Place& p, TensorId x, const std::string& suffix) {
  VisionBuilder& b = p.b;
  TensorGraph& g = b.graph;
  TensorId t = b.norm(x, p.name("ffn_norm" + suffix));
  t = b.perceptron(t, p.name("ffn_up" + suffix), p.name("ffn_down" + suffix));
  const std::string post = p.name("ffn_post_norm" + suffix);
  t = b.has(post + ".weight") ? b.norm(t, post) : t;
  return g.add(x, g.scale(t));
}

TensorId scaled_heads(const Place& p, TensorId x, const char* matrix, const char* scale) {
  VisionBuilder& b = p.b;
  TensorGraph& g = b.graph;
  TensorId t = b.linear(x, b.width, p.name(matrix));
  t = g.reshape(t, {p.head_dim(), p.heads(), b.n_patches, 1});
  if (scale == nullptr) {
    return t;
  }
  t = g.scale(t);
  return b.has(p.name(scale) + ".weight") ? g.mul(t, b.weight()) : t;
}

/// Every block's own positions and those before them: [head_dim, heads, seen, blocks].
TensorId overlapping(const Place& p, TensorId heads) {
  TensorGraph& g = p.b.graph;
  const int64_t missing = kSeen * p.blocks() - p.b.n_patches;
  const TensorId padded = g.cont(g.like(Op::roll, g.pad(heads, {0, 0, missing, 0})));
  const int64_t row = kFloatBytes * p.head_dim();
  const TensorId blocks = g.view(padded,
                                 {p.head_dim(), p.heads(), kSeen, p.blocks()},
                                 {kFloatBytes, row, row * p.heads(), row * p.heads() * kChunk});
  return g.cont(blocks);
}

/// Scores of relative positions, shifted so that each row begins at its own.
TensorId shifted_distances(const Place& p, TensorId queries) {
  TensorGraph& g = p.b.graph;
  const int64_t n = p.blocks();
  TensorId keys = g.project(p.distances, p.b.width);
  keys = g.reshape(keys, {p.head_dim(), p.heads(), kDistances, 1});
  keys = g.cont(g.permute(keys, 0, 2, 1, 3));
  const TensorId flat = g.reshape(queries, {p.head_dim(), kChunk * n, p.heads(), 1});
  TensorId t = g.reshape(g.mul_mat(keys, flat), {kDistances, kChunk, n, p.heads()});
  t = g.pad(t, {kSeen + 1 - kDistances, 0, 0, 0});
  t = g.reshape(t, {(kSeen + 1) * kChunk, n, p.heads(), 1});
  const int64_t row = kFloatBytes * (kSeen + 1) * kChunk;
  t = g.view(t, {kChunk * kSeen, n, p.heads(), 1}, {kFloatBytes, row, row * n, 0});
  return g.reshape(g.cont(t), {kSeen, kChunk, n, p.heads()});
}

TensorId attended(const Place& p, TensorId x) {
  VisionBuilder& b = p.b;
  TensorGraph& g = b.graph;
  const int64_t n = p.blocks();
  const TensorId normed = b.norm(x, p.name("attn_pre_norm"));
  TensorId q = scaled_heads(p, normed, "attn_q", "per_dim_scale");
  TensorId k = scaled_heads(p, normed, "attn_k", "per_dim_k_scale");
  TensorId v = scaled_heads(p, normed, "attn_v", nullptr);
  q = g.pad(q, {0, 0, n * kChunk - b.n_patches, 0});
  q = g.cont(g.permute(g.reshape(q, {p.head_dim(), p.heads(), kChunk, n}), 0, 3, 1, 2));
  k = g.cont(g.permute(overlapping(p, k), 0, 3, 1, 2));
  v = g.cont(g.permute(overlapping(p, v), 1, 3, 0, 2));
  TensorId scores = g.mul_mat(k, q);
  scores = g.add(scores, shifted_distances(p, q));
  scores = g.add(g.scale(g.unary(g.scale(scores))), p.mask);
  TensorId t = g.mul_mat(v, g.like(Op::soft_max, scores));
  t = g.cont(g.cont(g.permute(t, 0, 2, 3, 1)), {b.width, kChunk * n, 1, 1});
  if (n * kChunk > b.n_patches) {
    const int64_t row = kFloatBytes * b.width;
    t = g.cont(g.view(t, {b.width, b.n_patches, 1, 1}, {kFloatBytes, row, row * b.n_patches, 0}));
  }
  t = b.linear(t, b.width, p.name("attn_out"));
  const std::string post = p.name("attn_post_norm");
  return g.add(x, b.has(post + ".weight") ? b.norm(t, post) : t);
}

/// A gate, a causal convolution in every channel, and a matrix.
TensorId convolved(const Place& p, TensorId x) {
  VisionBuilder& b = p.b;
  TensorGraph& g = b.graph;
  const TensorId both = b.linear(b.norm(x, p.name("norm_conv")), 2 * b.width, p.name("conv_pw1"));
  const Extents half{b.width, b.n_patches, 1, 1};
  const Extents strides = g[both].nb;
  const TensorId gate = g.unary(g.view(both, half, strides, kFloatBytes * b.width));
  TensorId t = g.mul(g.view(both, half, strides), gate);
  t = g.pad(g.cont(g.transpose(t)), {kTaps, 0, 0, 0});
  t = g.operation(Op::ssm_conv, DType::f32, half, {g.like(Op::roll, t), b.weight()});
  t = b.has(p.name("conv_norm.weight")) ? g.mul(g.rms_norm(t), b.weight()) : t;
  return g.add(x, b.linear(g.unary(t), b.width, p.name("conv_pw2")));
}

}  // namespace

TensorId conformer(VisionBuilder& b, int64_t n_frames) {
  TensorGraph& g = b.graph;
  TensorId x = subsampled(b, n_frames);
  Place p{b};
  p.distances = g.input(DType::f32, {b.width, kDistances, 1, 1});
  p.mask = g.input(DType::f32, {kSeen, kChunk, p.blocks(), 1});
  for (p.layer = 0; p.layer < b.spec.n_layers; ++p.layer) {
    g.set_layer(p.layer);
    x = half_fed(p, x, "");
    x = convolved(p, attended(p, x));
    x = half_fed(p, x, "_1");
    x = b.has(p.name("ln2.weight")) ? b.norm(x, p.name("ln2")) : x;
  }
  g.set_layer(b.spec.n_layers);
  x = b.linear(x, b.rows_of("a.pre_encode.out.weight"), "a.pre_encode.out");
  x = g.rms_norm(x);
  x = b.has("mm.a.soft_emb_norm.weight") ? g.mul(x, b.weight()) : x;
  return b.linear(x, b.rows_of("mm.a.input_projection.weight"), "mm.a.input_projection");
}

}  // namespace kvfathom::llama_cpp
