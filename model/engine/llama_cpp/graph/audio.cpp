#include "model/engine/llama_cpp/graph/audio.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "model/engine/llama_cpp/graph/conformer.h"
#include "model/engine/llama_cpp/graph/vision_builder.h"
#include "model/rounding.h"

namespace kvfathom::llama_cpp {
namespace {

constexpr std::int64_t kWarmUpFrames = 3000;  // of 10 ms (clip_hparams::warmup_audio_size)
constexpr std::int64_t kFloatBytes = 4;

constexpr std::string_view kConformer = "gemma4a";

/// What a type of Whisper's kind has of its own between the layers and the language model.
struct Family {
  std::string_view type;
  bool pools = false;   ///< means of pairs of positions, before the last norm
  bool stacks = false;  ///< positions side by side make a token
};

constexpr auto kFamilies = std::to_array<Family>({
    {.type = "qwen2a", .pools = true},
    {.type = "ultravox", .stacks = true},
    {.type = "voxtral", .pools = true, .stacks = true},
});

const Family* family_of(const ProjectorSpec& projector) {
  const auto* const row = std::ranges::find(kFamilies, projector.type, &Family::type);
  return row == kFamilies.end() ? nullptr : row;
}

/// ggml_conv_1d_ph over three neighbours: columns in 16 bits, and a product that puts time first;
/// then a bias and a GELU.
TensorId convolved(VisionBuilder& b, TensorId x, std::int64_t n_in, std::int64_t n_out_frames) {
  TensorGraph& g = b.graph;
  constexpr std::int64_t kNeighbours = 3;
  const Extents columns_ne{kNeighbours * n_in, n_out_frames, 1, 1};
  const TensorId columns = g.operation(Op::cont, DType::f16, columns_ne, {b.weight(), x});
  const Extents matrix_ne{kNeighbours * n_in, b.width, 1, 1};
  const TensorId matrix = g.placed(DType::f16, matrix_ne, Placement::device, true);
  const Extents ne{n_out_frames, b.width, 1, 1};
  const TensorId product = g.operation(Op::mul_mat, DType::f32, ne, {columns, matrix});
  return g.unary(g.add(product, b.weight()));
}

/// Two convolutions, the second one over every other frame, and learned positions.
TensorId embedded_sound(VisionBuilder& b) {
  TensorGraph& g = b.graph;
  TensorId t = g.input(DType::f32, {kWarmUpFrames, b.spec.mel_bands, 1, 1});
  t = convolved(b, t, b.spec.mel_bands, kWarmUpFrames);
  t = convolved(b, t, b.width, b.n_patches);
  return g.add(g.cont(g.transpose(t)), b.weight());
}

/// Means of pairs of positions, which are neighbours in memory only for the pooling.
TensorId pooled_pairs(VisionBuilder& b, TensorId x) {
  TensorGraph& g = b.graph;
  const Extents ne{b.n_patches / 2, b.width, 1, 1};
  const TensorId t = g.operation(Op::pool_1d, DType::f32, ne, {g.cont(g.transpose(x))});
  return g.cont(g.transpose(t));
}

/// build_stack: the last token is padded with zeros.
TensorId stacked(VisionBuilder& b, TensorId x, std::int64_t n_positions) {
  TensorGraph& g = b.graph;
  const std::int64_t frames = b.spec.stacked_frames;
  const std::int64_t n_tokens = divide_up(n_positions, frames);
  const std::int64_t missing = (n_tokens * frames - n_positions) * b.width;
  if (missing > 0) {
    const std::int64_t values = n_positions * b.width;
    x = g.pad(g.view(x, {values, 1, 1, 1}, {kFloatBytes, 0, 0, 0}), {missing, 0, 0, 0});
  }
  return g.reshape(x, {b.width * frames, n_tokens, 1, 1});
}

TensorId projected(VisionBuilder& b, TensorId x) {
  TensorGraph& g = b.graph;
  if (b.spec.type == "qwen2a") {
    return b.linear(x, b.rows_of("mm.a.fc.weight"), "mm.a.fc");
  }
  if (b.spec.type == "voxtral") {
    return b.perceptron(x, "mm.a.mlp.1", "mm.a.mlp.2");
  }
  TensorId t = g.mul(g.rms_norm(x), b.weight());
  t = b.linear(t, b.rows_of("mm.a.mlp.1.weight"), "mm.a.mlp.1");
  t = g.mul(g.rms_norm(g.glu(t, kNoTensor)), b.weight());
  return b.linear(t, b.rows_of("mm.a.mlp.2.weight"), "mm.a.mlp.2");
}

}  // namespace

bool has_audio_graph(const ProjectorSpec& projector) {
  return projector.type == kConformer || family_of(projector) != nullptr;
}

TensorGraph audio_graph(const ProjectorSpec& projector, bool flash_attention) {
  if (projector.type == kConformer) {
    const EncoderInput input{.n_positions = conformer_positions(kWarmUpFrames)};
    VisionBuilder b(projector, input, true, false);
    b.graph.expand(conformer(b, kWarmUpFrames));
    return std::move(b.graph);
  }
  const Family& family = *family_of(projector);
  std::int64_t n_positions = kWarmUpFrames / 2;
  VisionBuilder b(projector, {.n_positions = n_positions}, false, flash_attention);
  TensorId x = b.layers(embedded_sound(b), kNoTensor, kNoTensor);
  if (family.pools) {
    x = pooled_pairs(b, x);
    n_positions /= 2;
  }
  x = b.post_norm(x);
  x = family.stacks ? stacked(b, x, n_positions) : x;
  b.graph.expand(projected(b, x));
  return std::move(b.graph);
}

}  // namespace kvfathom::llama_cpp
