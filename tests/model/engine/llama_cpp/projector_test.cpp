// Projectors against what llama-server logged when it loaded them: "load_hparams: model size",
// "alloc_compute_meta: .. compute buffer size" and "estimated worst-case memory usage of mmproj".
#include "model/engine/llama_cpp/projector.h"

#include <cmath>
#include <utility>

#include <gtest/gtest.h>

#include "model/error.h"
#include "tests/model/engine/llama_cpp/sample_projectors.h"

namespace kvfathom::llama_cpp {
namespace {

/// As the logs print it.
double mib(std::int64_t bytes) {
  return std::round(static_cast<double>(bytes) / (1 << 20) * 100) / 100;
}

// Qwen3.6-27B, mmproj-BF16.gguf, 334 tensors, warm-up with 1472 x 1472 (build 9557 and before):
// 887.99 MiB of model, 248.10 on CUDA0 and 24.93 on the CPU, 1161.02 in all.
TEST(Projector, OfQwen36TakesWhatWasLogged) {
  const ProjectorSpec spec = qwen_projector({});
  ASSERT_EQ(spec.tensors.size(), 334U);
  const ProjectorBytes gpu = projector_bytes(spec, true);
  EXPECT_EQ(mib(gpu.weights_bytes), 887.99);
  EXPECT_EQ(mib(gpu.compute_bytes), 248.10);
  EXPECT_EQ(mib(gpu.input_bytes), 24.93);
  EXPECT_EQ(mib(gpu.weights_bytes + gpu.compute_bytes + gpu.input_bytes), 1161.02);
  EXPECT_EQ(gpu.provenance, Provenance::exact);
}

// Qwen3.5-4B, 298 tensors: 644.26 MiB of model, 223.30 on CUDA0. Qwen3.5-2B on the CPU alone:
// 640.25 and 223.30.
TEST(Projector, OfASmallerTowerTakesWhatWasLogged) {
  QwenTower tower{.width = 1024, .intermediate = 4096, .layers = 24, .out = 2560};
  const ProjectorSpec spec = qwen_projector(tower);
  ASSERT_EQ(spec.tensors.size(), 298U);
  EXPECT_EQ(mib(projector_bytes(spec, true).weights_bytes), 644.26);
  EXPECT_EQ(mib(projector_bytes(spec, true).compute_bytes), 223.30);
  tower.out = 2048;
  const ProjectorBytes host = projector_bytes(qwen_projector(tower), false);
  EXPECT_EQ(mib(host.weights_bytes), 640.25);
  EXPECT_EQ(mib(host.compute_bytes), 223.30);
  EXPECT_EQ(host.input_bytes, 0);
}

// Qwen3-VL-8B, F16: 1502.33 MiB in all. Qwen3-VL-30B-A3B, F16, 352 tensors: 1033.29 of model.
TEST(Projector, OfQwen3VlHandsOverFeaturesOfThreeLayers) {
  QwenTower tower{.out = 4096, .deepstack = true, .patches = DType::f16, .matrices = DType::f16};
  const ProjectorBytes gpu = projector_bytes(qwen_projector(tower), true);
  EXPECT_EQ(mib(gpu.weights_bytes + gpu.compute_bytes + gpu.input_bytes), 1502.33);
  tower.out = 2048;
  ASSERT_EQ(qwen_projector(tower).tensors.size(), 352U);
  EXPECT_EQ(mib(projector_bytes(qwen_projector(tower), true).weights_bytes), 1033.29);
}

// Without FlashAttention one matrix of scores alone is 8464 x 8464 x 16 heads in f32 ("SOFT_MAX:
// type = f32, ne = [8464 8464 16 1]").
TEST(Projector, NeedsRoomForScoresWithoutFlashAttention) {
  const ProjectorSpec spec = qwen_projector({});
  EXPECT_GE(projector_bytes(spec, true, false).compute_bytes, std::int64_t{8464} * 8464 * 16 * 4);
  ProjectorSpec odd = spec;
  odd.n_heads = 24;  // heads of 48, for which CUDA has no kernel
  EXPECT_GE(projector_bytes(odd, true).compute_bytes, std::int64_t{8464} * 8464 * 24 * 4);
  EXPECT_LT(projector_bytes(odd, false).compute_bytes, std::int64_t{8464} * 8464 * 24 * 4);
}

/// Ministral-3-3B's tower, with gate matrices and no biases.
ProjectorSpec pixtral() {
  ProjectorSpec spec;
  spec.type = "pixtral";
  spec.n_layers = 24;
  spec.hidden_size = 1024;
  spec.n_heads = 16;
  spec.intermediate_size = 4096;
  spec.image_pixels = 1540;
  spec.patch_pixels = 14;
  spec.merged_patches = 2;
  const auto matrix = [&](const std::string& name, std::int64_t n_in, std::int64_t n_out) {
    add_tensor(spec, name + ".weight", {n_in, n_out, 1, 1}, DType::bf16);
  };
  const auto vector = [&](const std::string& name, std::int64_t n) {
    add_tensor(spec, name, {n, 1, 1, 1}, DType::f32);
  };
  add_tensor(spec, "v.patch_embd.weight", {14, 14, 3, 1024}, DType::f32);
  vector("v.pre_ln.weight", 1024);
  for (int i = 0; i < 24; ++i) {
    const std::string block = "v.blk." + std::to_string(i) + ".";
    for (const char* part : {"attn_q", "attn_k", "attn_v", "attn_out"}) {
      matrix(block + part, 1024, 1024);
    }
    matrix(block + "ffn_up", 1024, 4096);
    matrix(block + "ffn_gate", 1024, 4096);
    matrix(block + "ffn_down", 4096, 1024);
    vector(block + "ln1.weight", 1024);
    vector(block + "ln2.weight", 1024);
  }
  vector("mm.input_norm.weight", 1024);
  matrix("mm.patch_merger", 4096, 1024);
  matrix("mm.1", 1024, 3072);
  matrix("mm.2", 3072, 3072);
  vector("v.token_embd.img_break", 3072);
  return spec;
}

// ministral-3B-Instruct-2512, 223 tensors, on the CPU, warm-up with 448 x 448: 802.50 MiB of model
// and 64.49 of compute buffer, by a build whose rotation is another than the one followed here.
TEST(Projector, OfPixtralIsModelledWithinItsInterval) {
  ASSERT_EQ(pixtral().tensors.size(), 223U);
  const ProjectorBytes host = projector_bytes(pixtral(), false);
  EXPECT_EQ(mib(host.weights_bytes), 802.50);
  EXPECT_EQ(host.provenance, Provenance::modelled);
  EXPECT_NEAR(mib(host.compute_bytes), 64.49, 0.1 * 64.49);
}

TEST(Projector, WhatHasNoGraphIsRefused) {
  ProjectorSpec spec = qwen_projector({});
  spec.type = "resampler";
  EXPECT_THROW(static_cast<void>(projector_bytes(spec, true)), Unsupported);
  EXPECT_THROW(static_cast<void>(projector_bytes(whisper_projector("lfm2a", 2560), true)),
               Unsupported);
  spec = qwen_projector({});
  spec.modality = Modality::audio;  // a tower's type is no encoder's
  EXPECT_THROW(static_cast<void>(projector_bytes(spec, true)), Unsupported);
}

// Ultravox 0.5 with Llama-3.2-1B. Weights by hand: the encoder's 637 M parameters of
// Whisper-large-v3 (published: 635 M, which leaves out some norms) and 10240 x 4096 + 2048 x 2048.
// Buffers by hand: a feed-forward holds its input, its normed input and its inner values,
// 1500 x (1280 + 1280 + 5120) in f32, and leaves at most a hole of 1500 x 1280 below them.
TEST(Projector, OfUltravoxIsAWhisperEncoder) {
  const ProjectorBytes gpu = projector_bytes(whisper_projector("ultravox", 2048), true);
  EXPECT_NEAR(static_cast<double>(gpu.weights_bytes), 2 * (637e6 + 46.1e6), 0.01 * 1366e6);
  EXPECT_EQ(gpu.provenance, Provenance::modelled);
  EXPECT_GE(gpu.compute_bytes, 1500 * 7680 * 4);
  EXPECT_LE(gpu.compute_bytes, 1500 * (7680 + 1280) * 4);
  EXPECT_GE(gpu.input_bytes, 3000 * 128 * 4);  // half a minute of sound, copied to the GPU
  EXPECT_LT(gpu.input_bytes, 2 * 3000 * 128 * 4);
  EXPECT_EQ(output_width(whisper_projector("ultravox", 2048)), 2048);
}

// CUDA has no means of pairs in time: they are taken on the host, from a copy of 1500 x 1280.
TEST(Projector, OfQwen2AudioPoolsOnTheHost) {
  for (const char* type : {"qwen2a", "voxtral"}) {
    const ProjectorBytes gpu = projector_bytes(whisper_projector(type, 3584), true);
    EXPECT_GE(gpu.input_bytes, 1500 * 1280 * 4 + 750 * 1280 * 4) << type;
    EXPECT_EQ(output_width(whisper_projector(type, 3584)), 3584) << type;
  }
}

// Gemma-4 E2B. Weights by hand: 307,184,384 values of its class (hf_towers_test.cpp) in 16 bits.
// Buffers by hand: the second convolution reads 64 bands x 1,500 frames x 128 channels in f32 and
// makes columns of 1,152 for 32 x 750 places in its kernel's type; a hole of one such input may
// remain.
TEST(Projector, OfGemma4sConformerIsBoundByItsConvolutions) {
  for (const auto& [kernels, value_bytes] : {std::pair(DType::f16, 2), std::pair(DType::f32, 4)}) {
    const ProjectorSpec spec = gemma4_audio_projector(1536, kernels);
    const ProjectorBytes gpu = projector_bytes(spec, true);
    EXPECT_NEAR(static_cast<double>(gpu.weights_bytes), 2 * 307'184'384.0, 0.01 * 614e6);
    constexpr std::int64_t kInput = std::int64_t{64} * 1500 * 128 * 4;
    const std::int64_t columns = std::int64_t{1152} * 32 * 750 * value_bytes;
    EXPECT_GE(gpu.compute_bytes, kInput + columns);
    EXPECT_LE(gpu.compute_bytes, 2 * kInput + columns);
    EXPECT_EQ(output_width(spec), 1536);
  }
}

// Without FlashAttention the scores of 20 heads are 1500 x 1500 in f32.
TEST(Projector, AnEncoderNeedsRoomForScoresWithoutFlashAttention) {
  const ProjectorSpec spec = whisper_projector("ultravox", 2048);
  EXPECT_GE(projector_bytes(spec, true, false).compute_bytes, 20 * 1500 * 1500 * 4);
}

TEST(Projector, BoundsOfClampsTakeNoRoom) {
  ProjectorSpec spec = qwen_projector({});
  const std::int64_t bytes = projector_bytes(spec, true).weights_bytes;
  add_tensor(spec, "v.blk.0.ffn_down.output_max", {1, 1, 1, 1}, DType::f32);
  EXPECT_EQ(projector_bytes(spec, true).weights_bytes, bytes);
}

// Every type with a graph has one for a tower of its kind, on both devices.
TEST(Projector, EveryTypeHasAGraph) {
  for (const char* type :
       {"gemma3", "gemma4v", "pixtral", "qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger"}) {
    ProjectorSpec spec = qwen_projector({});
    spec.type = type;
    spec.full_attention_period = type == std::string("qwen2.5vl_merger") ? 8 : 0;
    for (const bool on_gpu : {false, true}) {
      const ProjectorBytes bytes = projector_bytes(spec, on_gpu);
      EXPECT_GT(bytes.compute_bytes, 1 << 20) << type;
      EXPECT_EQ(bytes.input_bytes > 0, on_gpu) << type;
    }
  }
}

}  // namespace
}  // namespace kvfathom::llama_cpp
