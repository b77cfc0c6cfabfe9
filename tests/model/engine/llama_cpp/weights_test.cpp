#include "model/engine/llama_cpp/weights.h"

#include <gtest/gtest.h>

#include "model/weights/recipe.h"
#include "tests/model/weights/tensor_lists.h"

namespace kvfathom::llama_cpp {
namespace {

using testing::models;
using testing::rows_of;

/// The tensors of the file that a ledger row was taken from.
std::vector<Tensor> ledger_tensors(const ModelSpec& model) {
  std::vector<Tensor> tensors = model.tensors;
  if (model.name == "gpt-oss-20b") {
    for (Tensor& t : tensors) {
      if (t.dtype == DType::f16) {
        t.dtype = t.shape[2] > 1 ? DType::mxfp4 : DType::q8_0;
      }
    }
  }
  return tensors;
}

TEST(LlamaCppWeights, EveryPlaceOfTheLedgerToTheByte) {
  const auto all = models();
  int checked = 0;
  for (const std::vector<std::string>& row : rows_of("llama_cpp/weights.tsv")) {
    SCOPED_TRACE(row[0] + ", " + row[1] + " GPUs, " + row[2] + " layers");
    const ModelSpec& model = all.at(row[0]);
    const std::vector<Tensor> tensors = ledger_tensors(model);
    LayerSplit split;
    split.n_gpus = std::stoi(row[1]);
    split.gpu_layers = std::stoll(row[2]);
    std::vector<std::int64_t> gpus;
    for (std::size_t column = 4; column < row.size(); ++column) {
      gpus.push_back(std::stoll(row[column]));
    }
    const PlacedWeights placed = placed_weights(model, tensors, split);
    EXPECT_EQ(placed.host_bytes, std::stoll(row[3]));
    EXPECT_EQ(placed.gpu_bytes, gpus);
    if (split.n_gpus < 2 && (split.gpu_layers == 0 || split.gpu_layers == 999)) {
      const WeightBytes whole = weight_bytes(model, tensors, split.n_gpus == 1);
      EXPECT_EQ(whole.host_bytes, placed.host_bytes);
      EXPECT_EQ(whole.device_bytes, gpus.empty() ? 0 : gpus.front());
    }
    ++checked;
  }
  EXPECT_EQ(checked, 39);
}

TEST(LlamaCppWeights, CpuBuffersOfFilesOfOneType) {
  const auto all = models();
  int checked = 0;
  for (const std::vector<std::string>& row : rows_of("llama_cpp/weights_cpu.tsv")) {
    const ModelSpec& model = all.at(row[0]);
    std::vector<Tensor> tensors = model.tensors;
    for (Tensor& t : tensors) {
      t.dtype = t.dtype == DType::f16 ? dtype_named(row[1]).value() : t.dtype;
    }
    EXPECT_EQ(weight_bytes(model, tensors, false).host_bytes, std::stoll(row[2]))
        << row[0] << " " << row[1];
    ++checked;
  }
  EXPECT_EQ(checked, 11);
}

TEST(LlamaCppWeights, MultiTokenPredictionBlocksAreSkipped) {
  const auto all = models();
  const ModelSpec& with = all.at("glm-4.7-flash-mtp");
  const ModelSpec& without = all.at("glm-4.7-flash");
  EXPECT_GT(kvfathom::weight_bytes(with.tensors), kvfathom::weight_bytes(without.tensors));
  for (const bool on_gpu : {false, true}) {
    const WeightBytes a = weight_bytes(with, with.tensors, on_gpu);
    const WeightBytes b = weight_bytes(without, without.tensors, on_gpu);
    EXPECT_EQ(a.device_bytes, b.device_bytes);
    EXPECT_EQ(a.host_bytes, b.host_bytes);
  }
}

TEST(LlamaCppWeights, TiedHeadIsASecondCopyWhereTheBufferDiffers) {
  ModelSpec model;
  model.layers.resize(1);
  const auto placed = [&](DType dtype, bool on_gpu) {
    const std::vector<Tensor> tensors{{"token_embd.weight", {1024, 64, 1, 1}, dtype}};
    return weight_bytes(model, tensors, on_gpu);
  };
  constexpr std::int64_t kElements = 65536;
  constexpr std::int64_t kHalf = kElements * 2;
  EXPECT_EQ(placed(DType::f16, false).host_bytes, kHalf);
  EXPECT_EQ(placed(DType::f16, true).host_bytes, kHalf);
  EXPECT_EQ(placed(DType::f16, true).device_bytes, kHalf);
  // the CPU interleaves q4_0 for its matrix products but not for row look-ups: two copies
  constexpr std::int64_t kQ4 = kElements / 32 * 18;
  EXPECT_EQ(placed(DType::q4_0, false).host_bytes, 2 * kQ4);
  EXPECT_EQ(placed(DType::q6_k, false).host_bytes, kElements / 256 * 210);
}

TEST(LlamaCppWeights, WhatCudaCannotRunStaysOnTheHost) {
  ModelSpec model;
  LayerSpec layer;
  layer.mixer = Mamba2{.d_inner = 256, .d_state = 64, .d_conv = 4, .n_heads = 4, .n_groups = 1};
  model.layers.push_back(layer);
  const auto on_device = [&](const Tensor& t) {
    return weight_bytes(model, std::vector<Tensor>{t}, true).device_bytes > 0;
  };
  EXPECT_FALSE(on_device({"blk.0.ssm_a", {1, 4, 1, 1}, DType::f32}));
  EXPECT_FALSE(on_device({"blk.0.ssm_conv1d.weight", {4, 320, 1, 1}, DType::f32}));
  EXPECT_TRUE(on_device({"blk.0.ssm_conv1d.weight", {4, 384, 1, 1}, DType::f32}));
  EXPECT_FALSE(on_device({"blk.0.ffn_up.weight", {256, 256, 1, 1}, DType::tq2_0}));
  EXPECT_TRUE(on_device({"blk.0.ffn_up.weight", {256, 256, 1, 1}, DType::iq1_m}));
  std::get<Mamba2>(model.layers[0].mixer).d_state = 128;
  EXPECT_TRUE(on_device({"blk.0.ssm_a", {1, 4, 1, 1}, DType::f32}));
}

}  // namespace
}  // namespace kvfathom::llama_cpp
