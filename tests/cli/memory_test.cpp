// What `memory --json` says, against logged bytes and its schema.
#include <cstdint>
#include <string>

#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

TEST(MemoryJson, TheCacheWithoutVOfGlm47FlashIsTheLoggedOne) {
  const Json now =
      json_of("memory glm-4.7-flash --engine llama.cpp --context 200000 --cache-type-k f16");
  EXPECT_EQ(now.at("cache").at("bytes"), 10839195648);  // 10337.06 MiB
  EXPECT_EQ(now.at("cache").at("v_bytes"), 0);
  EXPECT_EQ(now.at("cache").at("bytes_per_token"), 54144);
  EXPECT_EQ(now.at("cache").at("groups").at(0).at("cells"), 200192);
  EXPECT_EQ(now.at("scheme").at("id"), "native");
  EXPECT_EQ(now.at("fits"), nullptr);  // no GPU given
  const Json before = json_of(
      "memory glm-4.7-flash --engine llama.cpp --context 200000 --cache-type-k f16 "
      "--scheme mla-with-v");
  EXPECT_EQ(before.at("cache").at("bytes"), 20474036224);  // 19525.56 MiB
}

TEST(MemoryJson, AskingForANativeSchemeIsAskingForNative) {
  const std::string words = "memory glm-4.7-flash --engine ideal --context 1000";
  EXPECT_EQ(json_of(words + " --scheme mla-latent"), json_of(words));
}

TEST(MemoryJson, FitsIsDecidedByTheHighBound) {
  // Weights foretold by a recipe carry 1 % either way: a device between the bounds does not do.
  const Json none = json_of("memory qwen2.5-0.5b --context 1 --memory 1GiB --engine ideal");
  const auto& total = none.at("device_totals").at(0);
  EXPECT_EQ(none.at("fits"), true);
  const std::int64_t bytes = total.at("bytes");
  const std::int64_t high = total.at("high_bytes");
  ASSERT_LT(bytes, high);
  const std::string between = std::to_string((bytes + high) / 2) + "B";
  EXPECT_EQ(
      json_of("memory qwen2.5-0.5b --context 1 --engine ideal --memory " + between, 1).at("fits"),
      false);
}

TEST(MemoryJson, ReserveIsALine) {
  const Json document =
      json_of("memory qwen2.5-0.5b --context 1 --memory 2GiB --engine ideal --reserve 512MiB");
  EXPECT_EQ(document.at("ledger").back().at("line"), "reserve");
  EXPECT_EQ(document.at("ledger").back().at("bytes"), 512 << 20);
}

TEST(MemoryJson, TotalContextIsShared) {
  const Json document =
      json_of("memory qwen2.5-0.5b --total-context 4096 --sequences 4 --engine ideal");
  EXPECT_EQ(document.at("context_tokens"), 1024);
  EXPECT_EQ(document.at("sequences"), 4);
}

TEST(MemoryJson, RanksAreDevices) {
  const Json document = json_of(
      "memory llama-3.1-70b --engine vllm --context 8192 --gpu h100-sxm --tensor-parallel 4");
  EXPECT_EQ(document.at("device_totals").size(), 4U);
  EXPECT_EQ(document.at("device_totals").at(3).at("device"), "gpu3");
  EXPECT_EQ(document.at("command"),
            "vllm serve meta-llama/Llama-3.1-70B --max-model-len 8192 -tp 4");
}

}  // namespace
}  // namespace kvfathom::testing
