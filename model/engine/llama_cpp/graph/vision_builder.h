// Building blocks of vision towers and audio encoders, in the order in which clip.cpp creates and
// expands its tensors.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "model/architecture/projector_spec.h"
#include "model/engine/llama_cpp/graph/tensor_graph.h"

namespace kvfathom::llama_cpp {

/// What an encoder sees at once: patches of a square image, or positions in time.
struct EncoderInput {
  std::int64_t side = 0;  ///< patches of a side; 0: no image
  std::int64_t n_positions = 0;
};

/// A graph of an encoder under construction.
class VisionBuilder {
 public:
  /// Heads of [head_dim, heads, patches].
  struct Heads {
    TensorId q = kNoTensor;
    TensorId k = kNoTensor;
    TensorId v = kNoTensor;
  };

  VisionBuilder(const ProjectorSpec& projector,
                const EncoderInput& input,
                bool rms_norm,
                bool flash_attention);

  const ProjectorSpec& spec;
  const std::int64_t side;       ///< patches of a side
  const std::int64_t n_patches;  ///< or positions in time
  const std::int64_t width;      ///< of a patch's features
  TensorGraph graph;

  [[nodiscard]] bool has(std::string_view name) const { return names_.contains(name); }
  /// The file's tensor, or nullptr.
  [[nodiscard]] const Tensor* stored(std::string_view name) const;
  /// Rows that a stored matrix gives.
  [[nodiscard]] std::int64_t rows_of(std::string_view name) const;

  TensorId weight() { return graph.layer_weight(DType::f16, {}); }
  TensorId raw_image();
  /// ggml_conv_2d over patches: columns in the kernel's type, a product, and the copy that puts
  /// channels last: [side, side, width].
  TensorId patches(TensorId raw, std::string_view kernel);
  /// build_inp: [width, patches].
  TensorId embedded_image(TensorId raw);

  /// Normed, then times the weight and plus the bias that the file has.
  TensorId norm(TensorId x, const std::string& name);
  /// A stored matrix times x, between clamps where the file has their bounds (Gemma-4).
  TensorId linear(TensorId x, std::int64_t n_out, const std::string& name);
  /// Two matrices with a GELU between.
  TensorId perceptron(TensorId x, const std::string& first, const std::string& second);

  Heads project_heads(std::int64_t layer, TensorId x);
  TensorId attend(std::int64_t layer, const Heads& heads, TensorId mask);
  TensorId layer_feed_forward(std::int64_t layer, TensorId x);
  /// build_vit without its last norm, with each half of a head rotated by its own positions where
  /// there are some.
  TensorId layers(TensorId x, TensorId first_positions, TensorId second_positions);
  /// The norm behind the layers, where the file has one.
  TensorId post_norm(TensorId x);
  TensorId tower(TensorId x, TensorId first_positions, TensorId second_positions);
  /// Means of squares of patches: [width, tokens].
  TensorId pooled(TensorId x, std::int64_t patches_of_a_side);

  /// Norm of a layer's input and the like: "v.blk.3.ln1".
  [[nodiscard]] std::string block(std::int64_t layer, std::string_view part) const;

 private:
  TensorId feed_forward(TensorId x,
                        const std::string& up,
                        const std::string& gate,
                        const std::string& down);
  TensorId heads_of(TensorId x);
  TensorId part_of(TensorId fused, std::int64_t index);
  TensorId rotated_2d(TensorId x, TensorId first_positions, TensorId second_positions);
  TensorId vit_layer(std::int64_t layer,
                     TensorId x,
                     TensorId first_positions,
                     TensorId second_positions);

  const bool rms_norm_;
  const bool flash_attention_;
  const std::int64_t head_dim_;
  std::set<std::string, std::less<>> names_;
};

}  // namespace kvfathom::llama_cpp
