// Vision towers whose loads were logged, and audio encoders, tensor by tensor as
// convert_hf_to_gguf.py stores them.
#pragma once

#include <array>
#include <string>

#include "model/architecture/projector_spec.h"

namespace kvfathom {

struct QwenTower {
  std::int64_t width = 1152;
  std::int64_t intermediate = 4304;
  std::int64_t layers = 27;
  std::int64_t out = 5120;     ///< the language model's hidden size
  bool deepstack = false;      ///< Qwen3-VL hands over three layers' features too
  DType patches = DType::f32;  ///< of the convolution: f32 beside bf16, f16 beside f16
  DType matrices = DType::bf16;
};

inline void add_tensor(ProjectorSpec& spec,
                       const std::string& name,
                       std::array<std::int64_t, 4> shape,
                       DType type) {
  spec.tensors.push_back({name, shape, type});
}

inline ProjectorSpec qwen_projector(const QwenTower& t) {
  ProjectorSpec spec;
  spec.type = "qwen3vl_merger";
  spec.n_layers = t.layers;
  spec.hidden_size = t.width;
  spec.n_heads = 16;
  spec.intermediate_size = t.intermediate;
  spec.image_pixels = 768;
  spec.patch_pixels = 16;
  spec.merged_patches = 2;
  const auto matrix = [&](const std::string& name, std::int64_t n_in, std::int64_t n_out) {
    add_tensor(spec, name + ".weight", {n_in, n_out, 1, 1}, t.matrices);
    add_tensor(spec, name + ".bias", {n_out, 1, 1, 1}, DType::f32);
  };
  const auto norm = [&](const std::string& name, std::int64_t n) {
    add_tensor(spec, name + ".weight", {n, 1, 1, 1}, DType::f32);
    add_tensor(spec, name + ".bias", {n, 1, 1, 1}, DType::f32);
  };
  for (const char* name : {"v.patch_embd.weight", "v.patch_embd.weight.1"}) {
    add_tensor(spec, name, {16, 16, 3, t.width}, t.patches);
  }
  add_tensor(spec, "v.patch_embd.bias", {t.width, 1, 1, 1}, DType::f32);
  add_tensor(spec, "v.position_embd.weight", {t.width, 2304, 1, 1}, DType::f32);
  for (std::int64_t i = 0; i < t.layers; ++i) {
    const std::string block = "v.blk." + std::to_string(i) + ".";
    matrix(block + "attn_qkv", t.width, 3 * t.width);
    matrix(block + "attn_out", t.width, t.width);
    matrix(block + "ffn_up", t.width, t.intermediate);
    matrix(block + "ffn_down", t.intermediate, t.width);
    norm(block + "ln1", t.width);
    norm(block + "ln2", t.width);
  }
  const std::int64_t merged = 4 * t.width;
  for (const int i : {8, 16, 24}) {
    const std::string stack = "v.deepstack." + std::to_string(i) + ".";
    if (t.deepstack) {
      norm(stack + "norm", merged);
      matrix(stack + "fc1", merged, merged);
      matrix(stack + "fc2", merged, t.out);
    }
  }
  norm("v.post_ln", t.width);
  matrix("mm.0", merged, merged);
  matrix("mm.2", merged, t.out);
  return spec;
}

/// Gemma-4's conformer, in 16 bits but for the kernels of its convolutions over sound.
inline ProjectorSpec gemma4_audio_projector(std::int64_t out, DType kernels) {
  constexpr std::int64_t kWidth = 1024;
  ProjectorSpec spec{.modality = Modality::audio,
                     .type = "gemma4a",
                     .n_layers = 12,
                     .hidden_size = kWidth,
                     .n_heads = 8,
                     .intermediate_size = 4 * kWidth,
                     .mel_bands = 128};
  const auto matrix = [&](const std::string& name, std::int64_t n_in, std::int64_t n_out) {
    add_tensor(spec, name + ".weight", {n_in, n_out, 1, 1}, DType::f16);
    for (const char* bound : {".input_min", ".input_max", ".output_min", ".output_max"}) {
      add_tensor(spec, name + bound, {1, 1, 1, 1}, DType::f32);
    }
  };
  const auto vector = [&](const std::string& name, std::int64_t n) {
    add_tensor(spec, name, {n, 1, 1, 1}, DType::f32);
  };
  add_tensor(spec, "a.conv1d.0.weight", {3, 3, 1, 128}, kernels);
  add_tensor(spec, "a.conv1d.1.weight", {3, 3, 128, 32}, kernels);
  vector("a.conv1d.0.norm.weight", 128);
  vector("a.conv1d.1.norm.weight", 32);
  add_tensor(spec, "a.input_projection.weight", {kWidth, kWidth, 1, 1}, DType::f16);
  for (int i = 0; i < 12; ++i) {
    const std::string block = "a.blk." + std::to_string(i) + ".";
    for (const char* suffix : {"", "_1"}) {
      matrix(block + "ffn_up" + suffix, kWidth, 4 * kWidth);
      matrix(block + "ffn_down" + suffix, 4 * kWidth, kWidth);
      vector(block + "ffn_norm" + suffix + ".weight", kWidth);
      vector(block + "ffn_post_norm" + suffix + ".weight", kWidth);
    }
    for (const char* part : {"attn_q", "attn_k", "attn_v", "attn_out", "conv_pw2"}) {
      matrix(block + part, kWidth, kWidth);
    }
    matrix(block + "conv_pw1", kWidth, 2 * kWidth);
    add_tensor(spec, block + "attn_k_rel.weight", {kWidth, kWidth, 1, 1}, DType::f16);
    add_tensor(spec, block + "conv_dw.weight", {5, kWidth, 1, 1}, DType::f32);
    vector(block + "per_dim_scale.weight", kWidth / 8);
    for (const char* part : {"attn_pre_norm", "attn_post_norm", "norm_conv", "conv_norm", "ln2"}) {
      vector(block + part + ".weight", kWidth);
    }
  }
  add_tensor(spec, "a.pre_encode.out.weight", {kWidth, 1536, 1, 1}, DType::f16);
  vector("a.pre_encode.out.bias", 1536);
  add_tensor(spec, "mm.a.input_projection.weight", {1536, out, 1, 1}, DType::f16);
  return spec;
}

/// The encoder of Whisper-large-v3, in 16 bits, with the projector of `type`.
inline ProjectorSpec whisper_projector(const std::string& type, std::int64_t out) {
  constexpr std::int64_t kWidth = 1280;
  ProjectorSpec spec{.modality = Modality::audio,
                     .type = type,
                     .n_layers = 32,
                     .hidden_size = kWidth,
                     .n_heads = 20,
                     .intermediate_size = 5120,
                     .mel_bands = 128,
                     .stacked_frames = type == "ultravox"  ? 8
                                       : type == "voxtral" ? 4
                                                           : 1};
  const auto matrix = [&](const std::string& name, std::int64_t n_in, std::int64_t n_out) {
    add_tensor(spec, name + ".weight", {n_in, n_out, 1, 1}, DType::f16);
  };
  const auto vector = [&](const std::string& name, std::int64_t n) {
    add_tensor(spec, name, {n, 1, 1, 1}, DType::f32);
  };
  add_tensor(spec, "a.conv1d.1.weight", {3, 128, kWidth, 1}, DType::f16);
  add_tensor(spec, "a.conv1d.2.weight", {3, kWidth, kWidth, 1}, DType::f16);
  add_tensor(spec, "a.position_embd.weight", {kWidth, 1500, 1, 1}, DType::f32);
  for (const char* name : {"a.conv1d.1.bias", "a.conv1d.2.bias", "a.post_ln.weight"}) {
    vector(name, kWidth);
  }
  vector("a.post_ln.bias", kWidth);
  for (int i = 0; i < 32; ++i) {
    const std::string block = "a.blk." + std::to_string(i) + ".";
    for (const char* part : {"attn_q", "attn_k", "attn_v", "attn_out"}) {
      matrix(block + part, kWidth, kWidth);
    }
    matrix(block + "ffn_up", kWidth, 5120);
    matrix(block + "ffn_down", 5120, kWidth);
    vector(block + "ffn_up.bias", 5120);
    for (const char* part : {"attn_q.bias",
                             "attn_v.bias",
                             "attn_out.bias",
                             "ffn_down.bias",
                             "ln1.weight",
                             "ln1.bias",
                             "ln2.weight",
                             "ln2.bias"}) {
      vector(block + part, kWidth);
    }
  }
  const std::int64_t stacked = kWidth * spec.stacked_frames;
  if (type == "qwen2a") {
    matrix("mm.a.fc", kWidth, out);
    vector("mm.a.fc.bias", out);
  } else {
    const bool halves = type == "ultravox";
    matrix("mm.a.mlp.1", stacked, halves ? 4096 : out);
    matrix("mm.a.mlp.2", halves ? 2048 : out, out);
  }
  if (type == "ultravox") {
    vector("mm.a.norm_pre.weight", stacked);
    vector("mm.a.norm_mid.weight", 2048);
  }
  return spec;
}

}  // namespace kvfathom
