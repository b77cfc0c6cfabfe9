#include "model/weights/recipe.h"

#include <algorithm>
#include <iomanip>
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "model/error.h"
#include "tests/model/weights/tensor_lists.h"

namespace kvfathom {
namespace {

using testing::models;
using testing::rows_of;

std::string mib(std::int64_t bytes) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(2) << static_cast<double>(bytes) / (1024.0 * 1024.0);
  return out.str();
}

/// "f32=66 q4_k=193 q6_k=33", types by name.
std::string types_of(const std::vector<Tensor>& tensors) {
  std::map<std::string, int> counts;
  for (const Tensor& t : tensors) {
    ++counts[std::string(name(t.dtype))];
  }
  std::string text;
  for (const auto& [type, count] : counts) {
    text += (text.empty() ? "" : " ") + type + "=" + std::to_string(count);
  }
  return text;
}

Tensor matrix(std::string name, std::int64_t inputs, std::int64_t outputs) {
  return {std::move(name), {inputs, outputs, 1, 1}, DType::bf16};
}

TEST(Recipe, EveryFileTypeMatchesLlamaQuantizeToTheTensor) {
  const auto all = models();
  int checked = 0;
  for (const std::vector<std::string>& row : rows_of("quant/sizes.tsv")) {
    SCOPED_TRACE(row[0] + " " + row[1]);
    const ModelSpec& model = all.at(row[0]);
    const WeightRecipe recipe = parse_recipe(row[1]);
    ++checked;
    if (row[2] == "fail") {
      EXPECT_THROW((void)quantised(model, model.tensors, recipe), Unsupported);
      continue;
    }
    const std::vector<Tensor> stored = quantised(model, model.tensors, recipe);
    EXPECT_EQ(types_of(stored), row[3]);
    EXPECT_EQ(mib(weight_bytes(stored)), row[2]);
  }
  EXPECT_EQ(checked, 1162);
}

TEST(Recipe, OrderOfTheTensorsDoesNotMatter) {
  const auto all = models();
  std::mt19937 shuffle(1);
  for (const char* const name : {"qwen2.5-0.5b", "granite-4.0-h-tiny", "falcon-7b"}) {
    const ModelSpec& model = all.at(name);
    const std::vector<Tensor> stored = quantised(model, model.tensors, parse_recipe("q4_k_m"));
    std::vector<Tensor> shuffled = model.tensors;
    std::shuffle(shuffled.begin(), shuffled.end(), shuffle);
    std::vector<Tensor> again = quantised(model, shuffled, parse_recipe("q4_k_m"));
    const auto by_name = [](const Tensor& a, const Tensor& b) { return a.name < b.name; };
    std::vector<Tensor> expected = stored;
    std::ranges::sort(expected, by_name);
    std::ranges::sort(again, by_name);
    EXPECT_EQ(again, expected) << name;
  }
}

TEST(Recipe, TensorsThatAreQuantisedAlreadyKeepTheirType) {
  // gpt-oss ships its experts in MXFP4: every published GGUF of it, whatever the file type, has
  // them
  const ModelSpec model = models().at("gpt-oss-20b");
  std::vector<Tensor> tensors = model.tensors;
  for (Tensor& t : tensors) {
    if (t.shape[2] > 1) {
      t.dtype = DType::mxfp4;
    }
  }
  // sizes printed by llama.cpp for ggml-org's gpt-oss-20b-mxfp4.gguf (11.27 GiB; 586.82 MiB of
  // token_embd) and unsloth's gpt-oss-20b-F16.gguf (12.83 GiB)
  const auto gib = [&](const char* recipe) {
    return static_cast<double>(weight_bytes(quantised(model, tensors, parse_recipe(recipe)))) /
           (1024.0 * 1024.0 * 1024.0);
  };
  EXPECT_NEAR(gib("mxfp4_moe"), 11.27, 0.005);
  EXPECT_NEAR(gib("f16"), 12.83, 0.005);
}

TEST(Recipe, ConverterKeepsSmallTensorsInF32) {
  const ModelSpec model;
  const auto stored = [&](const Tensor& t) {
    return quantised(model, {t}, parse_recipe("q8_0")).front().dtype;
  };
  EXPECT_EQ(stored(matrix("blk.0.ffn_gate_inp.weight", 2048, 128)), DType::f32);
  EXPECT_EQ(stored(matrix("blk.0.ssm_conv1d.weight", 4, 8192)), DType::f32);
  EXPECT_EQ(stored(matrix("blk.0.attn_q_norm.weight", 64, 8)), DType::f32);
  EXPECT_EQ(stored(matrix("blk.0.ffn_up_exps.bias", 2880, 32)), DType::f32);
  EXPECT_EQ(stored(matrix("position_embd.weight", 768, 1024)), DType::f32);
  EXPECT_EQ(stored({"output_norm.weight", {4096, 1, 1, 1}, DType::bf16}), DType::f32);
  // these llama-quantize leaves as the converter wrote them
  EXPECT_EQ(stored(matrix("blk.0.laurel_l.weight", 2048, 64)), DType::bf16);
  EXPECT_EQ(stored(matrix("per_layer_model_proj.weight", 2048, 7680)), DType::bf16);
  Tensor fp8 = matrix("blk.0.laurel_l.weight", 2048, 64);
  fp8.dtype = DType::f8_e4m3;
  EXPECT_EQ(stored(fp8), DType::bf16);  // GGUF has no fp8
  // and these it quantises
  EXPECT_EQ(stored(matrix("blk.0.inp_gate.weight", 2048, 256)), DType::q8_0);
  EXPECT_EQ(stored(matrix("blk.0.attn_q.weight", 2048, 2048)), DType::q8_0);
}

TEST(Recipe, NamesInAnyCaseAndAliases) {
  EXPECT_EQ(parse_recipe("Q4_K_M"), parse_recipe("q4_k"));
  EXPECT_EQ(parse_recipe("Q4_0+imatrix").name, "q4_0+imatrix");
  EXPECT_TRUE(parse_recipe("iq2_xs").imatrix);
  EXPECT_FALSE(parse_recipe("iq4_xs").imatrix);
  EXPECT_EQ(parse_recipe("AWQ").group_size, 128);
  EXPECT_EQ(parse_recipe("gptq-g32").name, "gptq-g32");
  EXPECT_EQ(parse_recipe("q4_k_m").provenance, Provenance::exact);
  EXPECT_EQ(parse_recipe("fp8").provenance, Provenance::modelled);
  for (const std::string_view each : recipe_names()) {
    EXPECT_NO_THROW((void)parse_recipe(each)) << each;
  }
}

TEST(Recipe, FileTypesAsLoadersPrintAndFilesHoldThem) {
  EXPECT_EQ(file_type_named("Q4_K - Medium"), FileType::q4_k_m);
  EXPECT_EQ(file_type_named("IQ3_S mix - 3.66 bpw"), FileType::iq3_m);
  EXPECT_EQ(file_type_named("IQ3_XXS - 3.0625 bpw"), FileType::iq3_xxs);
  EXPECT_EQ(file_type_named("TQ2_0 - 2.06 bpw ternary"), FileType::tq2_0);
  EXPECT_EQ(file_type_named("IQ4_KSS - 4.0 bpw"), std::nullopt);  // the ik_llama.cpp fork's
  EXPECT_EQ(file_type_of_id(15), FileType::q4_k_m);
  EXPECT_EQ(file_type_of_id(38), FileType::mxfp4_moe);
  EXPECT_EQ(file_type_of_id(33), std::nullopt);  // Q4_0_4_4, removed
  for (const FileTypeInfo& row : file_types()) {
    EXPECT_EQ(file_type_of_id(row.id), row.file_type);
    EXPECT_EQ(file_type_named(row.name), row.file_type);
  }
}

TEST(Recipe, UnknownNamesAreRefusedWithTheKnownOnes) {
  const auto message = [](std::string_view name) -> std::string {
    try {
      (void)parse_recipe(name);
    } catch (const InputError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(
      message("q4_k_n").rfind(R"(--weights: "q4_k_n" is no weight format; use one of f32, )", 0),
      0U);
  EXPECT_NE(message("q4_k_n").find("q4_k_m, "), std::string::npos);
  EXPECT_NE(message("UD-Q4_K_XL").find("pass the GGUF file itself"), std::string::npos);
  for (const char* const name : {"",
                                 "awq-g0",
                                 "awq-g-8",
                                 "awq-g7",
                                 "awq-g4096",
                                 "q4_0-g64",
                                 "fp8-g64",
                                 "q4_0+imatrix+imatrix",
                                 "awq+imatrix",
                                 "awq-g128x",
                                 "-g64"}) {
    EXPECT_NE(message(name), "accepted") << name;
  }
}

TEST(Recipe, ServingFormatsPackMatricesAndTheirScales) {
  const ModelSpec model;
  const std::vector<Tensor> tensors{matrix("token_embd.weight", 4096, 1000),
                                    matrix("blk.0.attn_q.weight", 4096, 4096),
                                    {"blk.0.attn_norm.weight", {4096, 1, 1, 1}, DType::bf16},
                                    matrix("blk.0.ffn_gate_inp.weight", 4096, 8)};
  const auto bytes = [&](const char* recipe) {
    return weight_bytes(quantised(model, tensors, parse_recipe(recipe)));
  };
  constexpr std::int64_t kWidth = 4096;
  constexpr std::int64_t kRest = 2 * (kWidth * 1000 + kWidth + kWidth * 8);
  constexpr std::int64_t kElements = kWidth * kWidth;
  EXPECT_EQ(bytes("fp8"), kRest + kElements + kWidth / 128 * (kWidth / 128) * 4);
  EXPECT_EQ(bytes("fp8-dynamic"), kRest + kElements + 2 * kWidth);
  EXPECT_EQ(bytes("int8"), kRest + kElements + 2 * kWidth);
  // AWQ: half a byte a weight, and per group of 128 an f16 scale and a 4-bit zero
  EXPECT_EQ(bytes("awq"), kRest + kElements / 2 + kElements / 128 * 2 + kElements / 128 / 2);
  EXPECT_EQ(bytes("gptq"), bytes("awq") + 4 * kWidth);
  EXPECT_EQ(bytes("int4-g32"), kRest + kElements / 2 + kElements / 32 * 2);
  EXPECT_EQ(bytes("nvfp4"), kRest + kElements / 2 + kElements / 16 + 4);
  EXPECT_EQ(bytes("mxfp4"), kRest + kElements * 2);  // no experts: nothing to pack
}

TEST(Recipe, Nvfp4LeavesAttentionOfModelsWithExperts) {
  constexpr std::int64_t kExperts = 8;
  const std::vector<Tensor> tensors{
      matrix("blk.0.attn_q.weight", 4096, 4096),
      matrix("blk.0.ssm_out.weight", 4096, 4096),
      matrix("blk.0.ffn_up_shexp.weight", 4096, 512),
      {"blk.0.ffn_up_exps.weight", {4096, 512, kExperts, 1}, DType::bf16}};
  const ModelSpec model;
  const auto stored = quantised(model, tensors, parse_recipe("nvfp4"));
  constexpr std::int64_t kElements = 4096 * 512;
  constexpr std::int64_t kFp4 = kElements / 2 + kElements / 16 + 4;
  EXPECT_EQ(weight_bytes(stored), 2 * 2 * 4096 * 4096 + kFp4 + kExperts * kFp4);
}

TEST(Recipe, GgufSectionsOfRealFiles) {
  // full-length files of these shapes, written and measured outside this project
  const auto all = models();
  const ModelSpec& llama = all.at("llama-3.1-8b");
  EXPECT_EQ(weight_bytes(llama.tensors), 16061055232);
  EXPECT_EQ(gguf_data_bytes(llama.tensors), 16061055232);
  const ModelSpec& mamba = all.at("mamba2-2.7b");
  EXPECT_EQ(gguf_data_bytes(mamba.tensors), weight_bytes(mamba.tensors));
  EXPECT_EQ(gguf_data_bytes(std::vector<Tensor>{{"a", {3, 1, 1, 1}, DType::f32}}), 32);
  // magic, version, counts; name length, name, n_dims, two axes, type, offset (GGUF v3)
  EXPECT_EQ(gguf_tensor_info_bytes(std::vector<Tensor>{matrix("ab", 2, 3)}),
            24 + 8 + 2 + 4 + 16 + 4 + 8);
}

}  // namespace
}  // namespace kvfathom
