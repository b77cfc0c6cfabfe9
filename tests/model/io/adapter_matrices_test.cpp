// Stored adapters against the models that they are for: widths are those of the published configs.
#include "model/io/adapter_matrices.h"

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "model/error.h"
#include "tests/model/engine/serving/catalog_plan.h"

namespace kvfathom::testing {
namespace {

/// Llama-3.1-8B: 4,096 wide, 32 heads and 8 KV heads of 128, 14,336 in the feed-forward.
AdapterFile gguf(std::vector<Tensor> tensors) {
  return {.path = "a.gguf", .tensors = std::move(tensors), .gguf = true};
}
AdapterFile peft(std::vector<Tensor> tensors) {
  return {.path = "a.safetensors", .tensors = std::move(tensors), .gguf = false};
}

std::string refusal(const AdapterFile& file, const ModelSpec& model) {
  try {
    static_cast<void>(adapter_matrices(file, model));
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

TEST(AdapterMatrices, GgufPairsAreBesideTheirMatrices) {
  const ModelSpec llama = catalog("llama-3.1-8b");
  const auto matrices =
      adapter_matrices(gguf({{"blk.0.attn_k.weight.lora_a", {4096, 8, 1, 1}, DType::f16},
                             {"blk.0.attn_k.weight.lora_b", {8, 1024, 1, 1}, DType::f32},
                             {"blk.0.attn_norm.weight", {4096, 1, 1, 1}, DType::f32},
                             {"blk.31.ffn_down.weight.lora_a", {14336, 8, 1, 1}, DType::f16},
                             {"blk.31.ffn_down.weight.lora_b", {8, 4096, 1, 1}, DType::f16}}),
                       llama);
  constexpr std::int64_t kA0 = 4096LL * 8 * 2;
  constexpr std::int64_t kB0 = 8LL * 1024 * 4;
  constexpr std::int64_t kA31 = 14336LL * 8 * 2;
  constexpr std::int64_t kB31 = 8LL * 4096 * 2;
  EXPECT_EQ(held_by({}, llama, matrices), kA0 + kB0 + kA31 + kB31) << "no norms";
  EXPECT_EQ(held_by({.first_layer = 16}, llama, matrices), kA31 + kB31);
  EXPECT_EQ(held_by({.tensor_parallel = 2}, llama, matrices), kA0 + kB0 / 2 + kA31 / 2 + kB31);
}

TEST(AdapterMatrices, PeftNamesAreTheCheckpoints) {
  const ModelSpec llama = catalog("llama-3.1-8b");
  const std::string layer = "base_model.model.model.layers.7.";
  const auto matrices = adapter_matrices(
      peft(
          {{layer + "self_attn.v_proj.lora_A.weight", {4096, 16, 1, 1}, DType::f32},
           {layer + "self_attn.v_proj.lora_B.weight", {16, 1024, 1, 1}, DType::f32},
           {"base_model.model.model.embed_tokens.lora_embedding_A", {128256, 16, 1, 1}, DType::f32},
           {"base_model.model.model.embed_tokens.lora_embedding_B", {16, 4096, 1, 1}, DType::f32},
           {"base_model.model.lm_head.lora_A.weight", {4096, 16, 1, 1}, DType::f32},
           {"base_model.model.lm_head.lora_B.weight", {16, 128256, 1, 1}, DType::f32}}),
      llama);
  constexpr std::int64_t kV = (4096LL + 1024) * 16 * 4;
  constexpr std::int64_t kVocabulary = (128256LL + 4096) * 16 * 4;
  EXPECT_EQ(held_by({.first_layer = 7, .end_layer = 8}, llama, matrices), kV);
  EXPECT_EQ(held_by({.end_layer = 1}, llama, matrices), kVocabulary);
  EXPECT_EQ(held_by({.first_layer = 31}, llama, matrices), kVocabulary);
}

TEST(AdapterMatrices, ExpertsAreOneTensorOrOnePairEach) {
  const ModelSpec qwen = catalog("qwen3-30b-a3b");  // 128 experts of 2,048 to 768
  EXPECT_EQ(refusal(gguf({{"blk.0.ffn_up_exps.weight.lora_a", {2048, 8, 128, 1}, DType::f16},
                          {"blk.0.ffn_up_exps.weight.lora_b", {8, 768, 128, 1}, DType::f16}}),
                    qwen),
            "none");
  const std::string expert = "base_model.model.model.layers.0.mlp.experts.9.up_proj.";
  EXPECT_EQ(refusal(peft({{expert + "lora_A.weight", {2048, 8, 1, 1}, DType::f16},
                          {expert + "lora_B.weight", {8, 768, 1, 1}, DType::f16}}),
                    qwen),
            "none");
  EXPECT_EQ(refusal(gguf({{"blk.0.ffn_up_exps.weight.lora_a", {2048, 8, 64, 1}, DType::f16},
                          {"blk.0.ffn_up_exps.weight.lora_b", {8, 768, 64, 1}, DType::f16}}),
                    qwen),
            "a.gguf: \"blk.0.ffn_up_exps.weight.lora_a\": is 2048 x 8 x 64, beside "
            "blk.0.ffn_up_exps.weight (2048 x 768 x 128) of Qwen3-30B-A3B; 2048 x 8 x 128");
}

TEST(AdapterMatrices, AnothersAdapterIsRefusedByFileTensorAndShapes) {
  const ModelSpec llama = catalog("llama-3.1-8b");
  const Tensor a{"blk.0.attn_k.weight.lora_a", {4096, 8, 1, 1}, DType::f16};
  // that of a model without grouped queries
  EXPECT_EQ(refusal(gguf({a, {"blk.0.attn_k.weight.lora_b", {8, 4096, 1, 1}, DType::f16}}), llama),
            "a.gguf: \"blk.0.attn_k.weight.lora_b\": is 8 x 4096, beside blk.0.attn_k.weight "
            "(4096 x 1024) of Llama-3.1-8B; 8 x 1024");
  EXPECT_EQ(refusal(gguf({a, {"blk.0.attn_k.weight.lora_b", {4, 1024, 1, 1}, DType::f16}}), llama),
            "a.gguf: \"blk.0.attn_k.weight.lora_a\": is 4096 x 8, beside blk.0.attn_k.weight "
            "(4096 x 1024) of Llama-3.1-8B; 4096 x 4");
  EXPECT_EQ(refusal(gguf({{"blk.40.attn_k.weight.lora_a", {4096, 8, 1, 1}, DType::f16},
                          {"blk.40.attn_k.weight.lora_b", {8, 1024, 1, 1}, DType::f16}}),
                    llama),
            "a.gguf: \"blk.40.attn_k.weight.lora_a\": Llama-3.1-8B has no "
            "\"blk.40.attn_k.weight\"; its own adapter");
  EXPECT_EQ(refusal(gguf({a}), llama),
            "a.gguf: \"blk.0.attn_k.weight.lora_a\": its other half is missing; A and B of every "
            "matrix");
  EXPECT_EQ(refusal(gguf({{"blk.0.attn_k.bias", {1024, 1, 1, 1}, DType::f32}}), llama),
            "a.gguf: \"blk.0.attn_k.bias\": neither lora_a nor lora_b; pairs of them");
}

TEST(AdapterMatrices, ModulesThatNoRuleFindsAreRefused) {
  const ModelSpec llama = catalog("llama-3.1-8b");
  for (const std::string name : {"base_model.model.model.layers.0.self_attn.qkv_proj.lora_A.weight",
                                 "base_model.model.vision_tower.layers.0.mlp.up_proj.lora_A.weight",
                                 "base_model.model.model.layers.x.mlp.up_proj.lora_A.weight",
                                 "base_model.model.lm_head.weight"}) {
    EXPECT_EQ(refusal(peft({{name, {4096, 8, 1, 1}, DType::f16}}), llama),
              "a.safetensors: \"" + name.substr(0, 64) + (name.size() > 64 ? "...\"" : "\"") +
                  ": no rule says what of the model it adapts");
  }
}

}  // namespace
}  // namespace kvfathom::testing
