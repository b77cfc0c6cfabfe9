// Every --json document against its schema, and what it must say.
#include <cstdint>
#include <set>

#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

/// The answer of `scheme` in `type`, from a fit document.
Json answer(const Json& document, const std::string& scheme, const std::string& type) {
  for (const Json& one : document.at("answers")) {
    if (one.at("scheme").at("id") == scheme && one.at("scheme").at("cache_type_k") == type) {
      return one;
    }
  }
  ADD_FAILURE() << "no answer for " << scheme << " " << type;
  return {};
}

TEST(FitJson, ShowsWhatTheCacheWithoutVIsWorth) {
  const Json document = json_of("fit glm-4.7-flash --gpu rtx-4090 --weights q4_k_m");
  EXPECT_EQ(document.at("engine").at("name"), "llama.cpp");
  EXPECT_EQ(document.at("gpu").at("count"), 1);
  const Json native = answer(document, "native", "f16");
  const Json with_v = answer(document, "mla-with-v", "f16");
  EXPECT_EQ(native.at("cache_bytes_per_token"), 54144);
  EXPECT_EQ(with_v.at("cache_bytes_per_token"), 102272);
  EXPECT_EQ(native.at("limited_by"), "memory");
  EXPECT_EQ(answer(document, "native", "q8_0").at("scheme").at("exact"), false);
  EXPECT_GT(native.at("max_context_tokens").get<int>(),
            with_v.at("max_context_tokens").get<int>() * 17 / 10);
}

TEST(FitJson, ShowsWhatLatentsAreWorth) {
  const Json document = json_of("fit glm-4.7-flash --gpu rtx-4090 --weights q4_k_m --engine ideal");
  EXPECT_EQ(document.at("answers").size(), 5U);
  const Json with_v = answer(document, "mla-with-v", "bf16");
  const Json expanded = answer(document, "mla-expanded", "bf16");
  EXPECT_EQ(expanded.at("cache_bytes_per_token"), 962560);
  EXPECT_GT(with_v.at("max_context_tokens").get<int>(),
            expanded.at("max_context_tokens").get<int>() * 8);
}

TEST(FitJson, NoLargerContextFits) {
  const Json document = json_of("fit glm-4.7-flash --gpu rtx-4090 --weights q4_k_m");
  const int longest = answer(document, "native", "f16").at("max_context_tokens");
  const std::string words = "memory glm-4.7-flash --gpu rtx-4090 --weights q4_k_m --context ";
  EXPECT_EQ(json_of(words + std::to_string(longest)).at("fits"), true);
  for (const int more : {1, 256, 512, 4096, 20000}) {
    EXPECT_EQ(json_of(words + std::to_string(longest + more), 1).at("fits"), false) << more;
  }
}

TEST(FitJson, WeightsThatDoNotFitAreAResult) {
  const Json document = json_of("fit glm-4.7-flash --gpu rtx-4090 --engine ideal", 1);
  for (const Json& one : document.at("answers")) {
    EXPECT_EQ(one.at("max_context_tokens"), 0);
    EXPECT_EQ(one.at("limited_by"), "weights");
    EXPECT_EQ(one.at("command"), nullptr);
  }
}

TEST(FitJson, TheTrainedLengthBoundsUnlessLifted) {
  const std::string words = "fit qwen2.5-0.5b --memory 24GiB --engine ideal";
  const Json within = answer(json_of(words), "native", "bf16");
  EXPECT_EQ(within.at("max_context_tokens"), 32768);
  EXPECT_EQ(within.at("limited_by"), "model");
  const Json beyond = answer(json_of(words + " --beyond-trained"), "native", "bf16");
  EXPECT_EQ(beyond.at("limited_by"), "memory");
  EXPECT_GT(beyond.at("max_context_tokens").get<std::int64_t>(), 1000000);
}

TEST(FitJson, EveryEngineAnswersOrSaysWhyNot) {
  const Json document = json_of("fit gpt-oss-20b --gpu rtx-4090 --engine all");
  EXPECT_EQ(document.at("engine").at("name"), "all");
  std::set<std::string> answered;
  for (const Json& one : document.at("answers")) {
    answered.insert(one.at("engine").at("name").get<std::string>());
  }
  EXPECT_EQ(answered,
            (std::set<std::string>{"ideal", "llama.cpp", "vllm", "sglang", "huggingface"}));
  EXPECT_EQ(document.at("refused").size(), 1U);
  EXPECT_EQ(document.at("refused").at(0).at("engine"), "tensorrt-llm");
  // A single engine says so too, and is the same answer.
  const Json alone = json_of("fit gpt-oss-20b --gpu rtx-4090 --engine vllm");
  EXPECT_EQ(alone.at("answers").at(0), document.at("answers").at(2));
}

TEST(FitJson, OurOwnKernelsTakeWhatTheFormulaSays) {
  const std::string words = "fit glm-4.7-flash --gpu rtx-4090 --weights q4_k_m --engine ";
  const Json own = json_of(words + "reference");
  EXPECT_EQ(own.at("engine").at("name"), "reference");
  const Json formula = json_of(words + "ideal");
  ASSERT_EQ(own.at("answers").size(), formula.at("answers").size());
  for (std::size_t i = 0; i < formula.at("answers").size(); ++i) {
    EXPECT_EQ(own.at("answers").at(i).at("ledger"), formula.at("answers").at(i).at("ledger"));
    EXPECT_EQ(own.at("answers").at(i).at("scheme").at("engine_support"), true);
  }
}

TEST(FitJson, UsersAreCountedToTheLast) {
  const std::string machine = " --memory 2GiB --engine ideal --context 4096";
  const Json document = json_of("fit qwen2.5-0.5b --users" + machine);
  const Json native = answer(document, "native", "bf16");
  const int users = native.at("sequences");
  EXPECT_GT(users, 1);
  const std::string words = "memory qwen2.5-0.5b" + machine + " --sequences ";
  EXPECT_EQ(json_of(words + std::to_string(users)).at("fits"), true);
  EXPECT_EQ(json_of(words + std::to_string(users + 1), 1).at("fits"), false);
}

TEST(InspectJson, IsTheCatalogsOwnFormat) {
  const Json document = json_of("inspect glm-4.7-flash");
  EXPECT_EQ(document.at("layers").size(), 2U);
  EXPECT_EQ(document.at("layers").at(1).at("count"), 46);
  const fs::path written = fs::path(::testing::TempDir()) / "glm.json";
  std::ofstream(written) << document.dump();
  EXPECT_EQ(json_of("inspect " + written.string()).at("layers"), document.at("layers"));
}

/// Published: gemma_pytorch's configuration of 4B (4 KV heads of 256; 5 of 34 layers are global,
/// the window is 1,024) and the DeepSeek-V3.2-Exp report (512 + 64 latent, indexer keys of 128).
TEST(InspectJson, HoldsThePlanOfTheCache) {
  const Json gemma = json_of("inspect gemma-3-4b-it").at("cache_plan");
  ASSERT_EQ(gemma.size(), 2U);
  const Json& local = gemma.at(0);
  EXPECT_EQ(local.at("layers").size(), 29U);
  EXPECT_EQ(local.at("caches").at(0).at("scheme"), "window");
  EXPECT_EQ(local.at("caches").at(0).at("token_cap"), 1024);
  EXPECT_EQ(gemma.at(1).at("layers"), Json({5, 11, 17, 23, 29}));
  EXPECT_EQ(gemma.at(1).at("caches").at(0).at("k_row_elements"), 1024);
  EXPECT_FALSE(gemma.at(1).at("caches").at(0).contains("token_cap"));

  const Json sparse = json_of("inspect deepseek-v3.2").at("cache_plan");
  ASSERT_EQ(sparse.size(), 1U);
  EXPECT_EQ(sparse.at(0).at("layers").size(), 61U);
  const Json& caches = sparse.at(0).at("caches");
  ASSERT_EQ(caches.size(), 2U);
  EXPECT_EQ(caches.at(0).at("k_row_elements"), 576);
  EXPECT_EQ(caches.at(0).at("v_row_elements"), 0);
  EXPECT_EQ(caches.at(1).at("k_row_elements"), 128);
}

TEST(InspectJson, EveryCatalogFileFitsTheSchema) {
  const Json schema = schema_named("inspect");
  int files = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(KVFATHOM_SOURCE_DIR) / "data/models")) {
    EXPECT_EQ(schema_faults(Json::parse(read_all(entry.path())), schema),
              std::vector<std::string>{})
        << entry.path();
    ++files;
  }
  EXPECT_GT(files, 100);
}

TEST(ListJson, EachListFitsItsSchema) {
  for (const char* what : {"models", "gpus", "schemes", "types", "engines"}) {
    const Json document = json_of(std::string("list ") + what);
    EXPECT_EQ(document.at("what"), what);
    EXPECT_FALSE(document.at("items").empty());
  }
}

TEST(ModelArgument, IsFoundByHuggingFaceNameInAnyCase) {
  EXPECT_EQ(json_of("inspect zai-org/GLM-4.7-Flash"), json_of("inspect glm-4.7-flash"));
  EXPECT_EQ(json_of("inspect GLM-4.7-FLASH"), json_of("inspect glm-4.7-flash"));
}

TEST(GpuArgument, SizeNamesAndFilesAgree) {
  const std::string words = "memory qwen2.5-0.5b --context 1000 --engine ideal ";
  const Json named = json_of(words + "--gpu rtx-4090");
  EXPECT_EQ(json_of(words + "--gpu 4090"), named);
  EXPECT_EQ(json_of(words + "--gpu " KVFATHOM_SOURCE_DIR "/data/hardware/rtx-4090.json"), named);
  const std::int64_t capacity = named.at("device_totals").at(0).at("capacity_bytes");
  EXPECT_EQ(json_of(words + "--memory " + std::to_string(capacity)), named);
}

TEST(GpuArgument, NoGpuMeansTheHost) {
  const Json document =
      json_of("memory qwen2.5-0.5b --context 1000 --engine ideal --gpus 0 --memory 8GiB");
  EXPECT_EQ(document.at("ledger").at(0).at("device"), "host");
  EXPECT_EQ(document.at("fits"), true);
}

/// What `device` is filled with, and may be, of a memory document.
Json total_of(const Json& document, const std::string& device) {
  for (const Json& total : document.at("device_totals")) {
    if (total.at("device") == device) {
      return total;
    }
  }
  return {};
}

TEST(Placement, TheHostIsASecondCapacity) {
  const std::string words =
      "memory qwen3-30b-a3b --weights q4_k_m --gpu rtx-4070 --context 8192 --cpu-moe";
  const Json unknown = json_of(words);
  EXPECT_EQ(unknown.at("fits"), true);
  EXPECT_EQ(total_of(unknown, "host").at("capacity_bytes"), nullptr);
  const Json large = json_of(words + " --host-memory 32GiB");
  EXPECT_EQ(total_of(large, "host").at("fits"), true);
  const Json small = json_of(words + " --host-memory 16GiB", 1);
  EXPECT_EQ(total_of(small, "gpu0").at("fits"), true);
  EXPECT_EQ(total_of(small, "host").at("fits"), false);
  EXPECT_EQ(small.at("fits"), false);
}

TEST(Placement, AHardwareFileMaySayWhatItsHostHas) {
  Json file = Json::parse(read_all(fs::path(KVFATHOM_SOURCE_DIR) / "data/hardware/rtx-4070.json"));
  file["id"] = "mine";
  file["host_memory_bytes"] = std::int64_t{32} << 30;
  const fs::path path = fs::path(::testing::TempDir()) / "mine.json";
  std::ofstream(path) << file.dump();
  const Json document = json_of(
      "memory qwen3-30b-a3b --weights q4_k_m --context 8192 --cpu-moe --gpu " + path.string());
  EXPECT_EQ(total_of(document, "host").at("capacity_bytes"), std::int64_t{32} << 30);
}

// The experts of the last layers are on the host, and one layer may be in parts between: with those
// of one layer more on the GPU, 1 GiB is not free any more.
TEST(Placement, AutoKeepsTheExpertsOfTheFirstLayersOnTheGpu) {
  const Json chosen =
      json_of("memory qwen3-30b-a3b --weights q4_k_m --gpu rtx-4070 --context 8192 --auto");
  EXPECT_EQ(chosen.at("fits"), true);
  const Json& placement = chosen.at("placement");
  EXPECT_EQ(placement.at("layers").size(), 1U);
  EXPECT_EQ(placement.at("host_expert_layers"), 0);
  const Json& rest = placement.at("moved").back();
  EXPECT_EQ(rest.at("matrices"), "experts");
  EXPECT_EQ(rest.at("device"), "host");
  EXPECT_EQ(rest.at("last_layer"), 47);
  const std::int64_t on_host = 48 - rest.at("first_layer").get<std::int64_t>();
  const std::string by_hand =
      "memory qwen3-30b-a3b --weights q4_k_m --gpu rtx-4070 --context 8192 --reserve 1GiB "
      "--cpu-moe-layers ";
  EXPECT_EQ(json_of(by_hand + std::to_string(on_host + 1)).at("fits"), true);
  EXPECT_EQ(json_of(by_hand + std::to_string(on_host - 2), 1).at("fits"), false);
}

TEST(Placement, AutoTakesLayersWhereThereAreNoExperts) {
  const std::string words = "memory llama-3.1-8b --weights q8_0 --memory 6GiB --context 8192 ";
  const Json chosen = json_of(words + "--auto");
  const int on_gpu = chosen.at("placement").at("layers").at(0).at("count");
  EXPECT_EQ(chosen.at("placement").at("layers").at(1).at("device"), "host");
  const std::string by_hand = words + "--reserve 1GiB --gpu-layers ";
  EXPECT_EQ(json_of(by_hand + std::to_string(on_gpu)).at("ledger"), chosen.at("ledger"));
  EXPECT_EQ(json_of(by_hand + std::to_string(on_gpu + 1), 1).at("fits"), false);
}

// llama.cpp gives up context before layers, down to 4,096 tokens; that fits here by interpolation
// between them and the trained 131,072, to a block of 256.
TEST(Placement, AutoShrinksTheContextFirst) {
  const std::string words =
      "fit llama-3.1-8b --weights q8_0 --gpu rtx-4070 --cache-type-k f16 "
      "--cache-type-v f16 --scheme native ";
  const Json longest = json_of(words + "--reserve 1GiB").at("answers").at(0);
  const Json chosen = json_of(words + "--auto").at("answers").at(0);
  EXPECT_EQ(chosen.at("placement"), nullptr);
  EXPECT_EQ(chosen.at("limited_by"), "memory");
  const std::int64_t most = longest.at("max_context_tokens");
  const std::int64_t context = chosen.at("max_context_tokens");
  EXPECT_EQ(context % 256, 0);
  EXPECT_LE(context, most);
  EXPECT_GE(context, most - 1024);
}

TEST(Placement, AutoKeepsTheLeastContextAndMovesLayersBelowIt) {
  const Json answers =
      json_of("fit llama-3.1-8b --weights q8_0 --memory 6GiB --auto").at("answers");
  for (const Json& answer : answers) {
    EXPECT_EQ(answer.at("max_context_tokens"), 4096);
    EXPECT_EQ(answer.at("placement").at("layers").size(), 2U);
  }
}

TEST(Placement, AutoLeavesAloneWhatFits) {
  const Json chosen =
      json_of("memory llama-3.1-8b --weights q8_0 --gpu rtx-4090 --context 8192 --auto");
  EXPECT_EQ(chosen.at("placement"), nullptr);
}

TEST(DefaultEngine, IsVllmForACheckpointAndTheFormulaWhereVllmHasNoRule) {
  const Json served = json_of("memory qwen2.5-0.5b --context 1000").at("engine");
  EXPECT_EQ(served.at("name"), "vllm");
  EXPECT_TRUE(served.at("default_refused").is_null());
  const Json gguf = json_of("memory qwen2.5-0.5b --context 1000 --weights q8_0").at("engine");
  EXPECT_EQ(gguf.at("name"), "llama.cpp");
  for (const char* words : {"memory rwkv-5-world-3b --context 1000",
                            "memory qwen2.5-0.5b --context 1000 --scheme kivi",
                            "memory qwen2.5-0.5b --context 1000 --cache-type-k q8_0",
                            "memory qwen2.5-0.5b --context 1000 --gpus 0",
                            "memory qwen2.5-0.5b --context 1000 --gpu m4-max-40-core"}) {
    const Json engine = json_of(words).at("engine");
    EXPECT_EQ(engine.at("name"), "ideal") << words;
    EXPECT_TRUE(engine.at("default_refused").is_string()) << words;
  }
}

TEST(DefaultEngine, RefusesForVllmWhatNoEngineTakes) {
  const Ran ran = run_cli("memory rwkv-5-world-3b --context 1000 --tensor-parallel 2");
  EXPECT_EQ(ran.status, 3);
  EXPECT_NE(ran.err.find("vllm: no rule"), std::string::npos) << ran.err;
}

TEST(Placement, AppleLimitsBoundTheGpuAndNotTheHost) {
  const std::string words = "memory llama-3.1-8b --weights q8_0 --context 8192 --gpu m4-pro";
  EXPECT_EQ(total_of(json_of(words), "gpu0").at("capacity_bytes"), std::int64_t{48} << 30);
  // One memory: the host's lines are paid from what the GPU leaves of all 64 GiB.
  const Json host = total_of(json_of(words), "host");
  EXPECT_EQ(host.at("capacity_bytes"), std::int64_t{64} << 30);
  EXPECT_EQ(host.at("shared_with"), "gpu0");
  EXPECT_EQ(total_of(json_of(words + " --gpus 0"), "host").at("capacity_bytes"),
            std::int64_t{64} << 30);
}

}  // namespace
}  // namespace kvfathom::testing
