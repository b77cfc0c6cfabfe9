// Adapters beside a model, against parameter counts that others printed.
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/cli/run_json.h"
#include "tests/model/io/gguf_writer.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

Json lora_line(const std::string& words, const std::string& device = "gpu0") {
  const Json document = json_of("memory " + words + " --context 4096");
  for (const Json& line : document.at("ledger")) {
    if (line.at("device") == device && line.at("line") == "lora") {
      return line;
    }
  }
  ADD_FAILURE() << "no line";
  return {};
}

std::pair<int, std::string> refusal(const std::string& words) {
  const Ran ran = run_cli("memory " + words + " --context 4096");
  return {ran.status, ran.err};
}

TEST(Adapters, ParametersAreThoseThatPeftPrints) {
  // "trainable params: 41,943,040": Llama-3.1-8B, rank 16, all seven projections (Unsloth, PEFT)
  EXPECT_EQ(lora_line("llama-3.1-8b --engine ideal --lora-rank 16").at("bytes"), 41'943'040 * 2);
  EXPECT_EQ(lora_line("llama-3.1-8b --engine ideal --lora-rank 16 --lora-targets all --max-loras 4")
                .at("bytes"),
            41'943'040 * 2 * 4);
  // "trainable params: 4,194,304": Llama-2-7B, rank 8, q_proj and v_proj (PEFT)
  EXPECT_EQ(lora_line("llama-2-7b-hf --engine ideal --lora-rank 8 --lora-targets q,v").at("bytes"),
            4'194'304 * 2);
}

TEST(Adapters, LlamaCppHasThemInSinglePrecisionAsItsConverterWritesThem) {
  // convert_lora_to_gguf.py: "--outtype", default "f32"; with f16 they are half of it
  const Json line =
      lora_line("llama-3.1-8b --engine llama.cpp --weights q4_k_m --gpus 1 --lora-rank 16");
  EXPECT_EQ(line.at("bytes"), 41'943'040 * 4);
  EXPECT_EQ(line.at("low_bytes"), 41'943'040 * 2);
  EXPECT_GE(line.at("high_bytes").get<std::int64_t>(), 41'943'040 * 4);
}

TEST(Adapters, EveryChosenExpertHasRowsOfItsOwnInTheGraph) {
  // ggml_mul_mat_id makes {n_out, n_expert_used, n_tokens} (ggml.h). Qwen3-30B-A3B: eight of 128
  // experts, which bring 768 values back to 2,048; three such products in f32 for 512 tokens.
  const Json line = lora_line(
      "qwen3-30b-a3b --engine llama.cpp --weights q4_k_m --gpus 1 --lora-rank 8 --lora-targets "
      "down");
  EXPECT_EQ(line.at("high_bytes"), 48LL * 128 * 8 * (768 + 2048) * 4 + 3LL * 8 * 2048 * 512 * 4);
  const Json dense = lora_line(
      "llama-3.1-8b --engine llama.cpp --weights q4_k_m --gpus 1 --lora-rank 8 --lora-targets up");
  EXPECT_EQ(dense.at("high_bytes"), 32LL * 8 * (4096 + 14336) * 4 + 3LL * 14336 * 512 * 4);
}

TEST(Adapters, VllmCutsOneHalfOfEachPair) {
  // By hand, Llama-3.1-8B over two ranks, R (n_in + n_out/2) or R (n_in/2 + n_out) a matrix:
  // q 4096+2048, k and v 4096+512, o 2048+4096, gate and up 4096+7168, down 7168+4096
  const std::int64_t values = 16LL * 32 * (6144 + 2 * 4608 + 6144 + 2 * 11264 + 11264);
  const std::string words = "llama-3.1-8b --engine vllm --tensor-parallel 2 --gpu h100-sxm ";
  for (const std::string device : {"gpu0", "gpu1"}) {
    const Json line = lora_line(words + "--lora-rank 16 --max-loras 3", device);
    EXPECT_EQ(line.at("bytes"), values * 2 * 3);
    EXPECT_EQ(line.at("high_bytes"), (values + 16LL * 2 * (128256 + 4096)) * 2 * 3);
  }
  // slots are for every matrix, whatever the targets
  EXPECT_EQ(lora_line(words + "--lora-rank 16 --lora-targets q").at("bytes"), values * 2);
}

/// Bytes of the lora line by device, in the order of the devices.
std::vector<std::int64_t> lora_bytes(const Json& ledger) {
  std::vector<std::int64_t> bytes;
  for (const Json& line : ledger) {
    if (line.at("line") == "lora") {
      EXPECT_EQ(line.at("provenance"), "exact");
      bytes.push_back(line.at("bytes"));
    }
  }
  return bytes;
}

TEST(Adapters, TheFormulaHasThemBesideTheirMatrices) {
  const auto bytes = [](const std::string& words) {
    const Ran ran = run_cli("memory llama-3.1-8b --engine ideal --gpu h100-sxm --lora-rank 16 " +
                            words + " --context 4096 --json");
    EXPECT_EQ(ran.status, 0) << ran.err;
    return lora_bytes(Json::parse(ran.out).at("ledger"));
  };
  const std::vector<std::int64_t> halves(2, 41'943'040);
  EXPECT_EQ(bytes("--gpus 2"), halves);
  // as in VllmCutsOneHalfOfEachPair
  const std::int64_t rank = 16LL * 32 * (6144 + 2 * 4608 + 6144 + 2 * 11264 + 11264) * 2;
  EXPECT_EQ(bytes("--gpus 2 --tensor-parallel 2"), (std::vector<std::int64_t>{rank, rank}));
  EXPECT_EQ(bytes("--gpus 4 --tensor-parallel 2"),
            (std::vector<std::int64_t>(4, rank / 2)));  // two stages of two
}

TEST(Adapters, ASearchOverMachinesPlansThemOnEach) {
  const auto found = [](const std::string& words) {
    const Ran ran = run_cli("fit " + words + " --smallest-gpu --context 8192 --json");
    EXPECT_EQ(ran.status, 0) << ran.err;
    return Json::parse(ran.out);
  };
  const Json ideal = found("llama-3.1-8b --engine ideal --lora-rank 16");
  EXPECT_EQ(ideal.at("refused"), Json::array());
  for (const Json& offer : ideal.at("by_count")) {
    const std::int64_t n = offer.at("count");
    EXPECT_EQ(lora_bytes(offer.at("ledger")),
              std::vector<std::int64_t>(static_cast<std::size_t>(n), 41'943'040LL * 2 / n));
  }
  EXPECT_EQ(ideal.at("by_count").size(), 4U);
  const Json llama_cpp = found("llama-3.1-8b --engine llama.cpp --weights q8_0 --lora-rank 16");
  EXPECT_EQ(llama_cpp.at("refused"), Json::array());
  ASSERT_EQ(llama_cpp.at("by_count").size(), 4U);
  for (const Json& offer : llama_cpp.at("by_count")) {
    std::int64_t held = 0;
    for (const Json& line : offer.at("ledger")) {
      held += line.at("line") == "lora" ? line.at("bytes").get<std::int64_t>() : 0;
    }
    EXPECT_EQ(held, 41'943'040LL * 4);
  }
}

/// Bytes by device, of llama.cpp.
std::map<std::string, std::int64_t> by_device(const std::string& words) {
  const Ran ran = run_cli("memory " + words + " --engine llama.cpp --context 4096 --json");
  EXPECT_NE(ran.status, 2) << ran.err;
  EXPECT_NE(ran.status, 3) << ran.err;
  const Json document = Json::parse(ran.out);
  std::map<std::string, std::int64_t> held;
  for (const Json& line : document.at("ledger")) {
    if (line.at("line") == "lora") {
      held[line.at("device")] = line.at("bytes");
    }
  }
  return held;
}

using Held = std::map<std::string, std::int64_t>;

// llama-adapter.cpp: each pair in the buffer type of the tensor that it adapts. Llama-3.1-8B has
// 41,943,040 / 32 values of rank 16 in every layer; two equal GPUs take 17 and 15 of the layers
// (33 parts with the output head: i / 33 < 1 / 2), and of 20 on a GPU one is the output head.
TEST(Adapters, LlamaCppHasThemBesideTheirMatrices) {
  constexpr std::int64_t kLayer = 41'943'040LL / 32 * 4;
  const std::string words = "llama-3.1-8b --weights q4_k_m --lora-rank 16 ";
  EXPECT_EQ(by_device(words + "--gpus 2"), (Held{{"gpu0", 17 * kLayer}, {"gpu1", 15 * kLayer}}));
  EXPECT_EQ(by_device(words + "--gpus 1 --gpu-layers 20"),
            (Held{{"gpu0", 19 * kLayer}, {"host", 13 * kLayer}}));
  EXPECT_EQ(by_device(words + "--gpus 0"), (Held{{"host", 32 * kLayer}}));
  EXPECT_EQ(by_device(words + "--gpus 1 --max-loras 3"), (Held{{"gpu0", 96 * kLayer}}));
}

// Qwen3-30B-A3B: 48 layers of 128 experts, whose adapters stay with them on the host.
TEST(Adapters, ThoseOfExpertsGoWhereTheExpertsAre) {
  constexpr std::int64_t kLayer = std::int64_t{128} * 8 * (768 + 2048) * 4;
  EXPECT_EQ(by_device("qwen3-30b-a3b --weights q4_k_m --gpus 1 --lora-rank 8 --lora-targets down "
                      "--cpu-moe-layers 12"),
            (Held{{"gpu0", 36 * kLayer}, {"host", 12 * kLayer}}));
}

// A large batch of a layer on the host runs on the GPU, with copies of its matrices.
TEST(Adapters, OfTheHostsLayersTheFirstGpuMayTakeCopies) {
  const auto high = [](const std::string& where) {
    return lora_line("llama-3.1-8b --engine llama.cpp --weights q4_k_m --lora-rank 16 " + where)
        .at("high_bytes")
        .get<std::int64_t>();
  };
  constexpr std::int64_t kLayer = 41'943'040LL / 32 * 4;
  const std::int64_t graph = high("--gpus 1") - 32 * kLayer;
  EXPECT_EQ(high("--gpus 1 --gpu-layers 20"), 19 * kLayer + graph + kLayer);
}

TEST(Adapters, WhatDoesNotFitSaysSoWithoutMovingThem) {
  const Ran ran = run_cli(
      "memory llama-3.1-8b --engine llama.cpp --weights q8_0 --lora-rank 16 "
      "--memory 6GiB --context 4096");
  EXPECT_EQ(ran.status, 1) << ran.err;
  EXPECT_EQ(ran.out.find("--gpu-layers"), std::string::npos) << ran.out;
}

TEST(Adapters, AFileCountsItsOwnTensors) {
  const auto path = std::filesystem::temp_directory_path() / "kvfathom_adapters_test.gguf";
  const auto write = [&](const std::string& type, bool embeds = false) {
    GgufWriter writer;
    writer.text("general.architecture", "llama").text("general.type", type);
    writer.tensor("blk.0.attn_q.weight.lora_a", {4096, 8}, DType::f16);
    writer.tensor("blk.0.attn_q.weight.lora_b", {8, 4096});
    if (embeds) {  // beside the embedding, which llama.cpp keeps on the host
      writer.tensor("token_embd.weight.lora_a", {8, 128256});
      writer.tensor("token_embd.weight.lora_b", {8, 4096});
    }
    std::ofstream(path, std::ios::binary) << writer.file();
  };
  write("adapter");
  const std::string words = "llama-3.1-8b --gpus 1 --lora " + path.string() + " --engine ";
  const std::int64_t bytes = 4096 * 8 * 2 + 8 * 4096 * 4;
  EXPECT_EQ(lora_line(words + "ideal").at("bytes"), bytes);
  EXPECT_EQ(lora_line(words + "llama.cpp --weights q8_0").at("bytes"), bytes);
  EXPECT_EQ(refusal(words + "vllm").first, 3);  // slots, not files
  const auto [status, why] =
      refusal("qwen3-32b --weights q8_0 --gpus 1 --engine llama.cpp --lora " + path.string());
  EXPECT_EQ(status, 2);
  EXPECT_NE(why.find(path.string() + ": \"blk.0.attn_q.weight.lora_a\": is 4096 x 8, beside "
                                     "blk.0.attn_q.weight (5120 x 8192) of Qwen3-32B; 5120 x 8"),
            std::string::npos)
      << why;
  write("model");
  EXPECT_EQ(refusal(words + "ideal").first, 2);
  write("adapter", true);
  EXPECT_EQ(by_device("llama-3.1-8b --weights q8_0 --gpus 1 --lora " + path.string()),
            (Held{{"gpu0", bytes}, {"host", 8 * (128256 + 4096) * 4}}));
  std::filesystem::remove(path);
}

TEST(Adapters, WhatHasNoRuleIsRefusedByName) {
  const std::string llama = "llama-3.1-8b --engine ideal ";
  EXPECT_EQ(refusal(llama + "--lora-targets q").first, 2);
  EXPECT_EQ(refusal(llama + "--lora-rank 8 --lora-targets w").first, 2);
  EXPECT_EQ(refusal(llama + "--lora-rank 8 --lora x.gguf").first, 2);
  EXPECT_EQ(refusal(llama + "--lora missing.gguf").first, 2);
  EXPECT_EQ(refusal("llama-3.1-8b --engine vllm --gpu h100-sxm --lora-rank 12").first, 2);
  EXPECT_EQ(refusal("llama-3.1-8b --engine sglang --gpu h100-sxm --lora-rank 16").first, 3);
  const auto [fitted, fit] =
      refusal("llama-3.1-8b --engine llama.cpp --weights q8_0 --gpu rtx-4090 --auto --lora-rank 8");
  EXPECT_EQ(fitted, 3);
  EXPECT_NE(fit.find("llama.cpp's fit does not count adapters"), std::string::npos) << fit;
  const auto [latent, why] = refusal("deepseek-v3 --engine ideal --lora-rank 8");
  EXPECT_EQ(latent, 3);
  EXPECT_NE(why.find("not plain attention"), std::string::npos) << why;
}

}  // namespace
}  // namespace kvfathom::testing
