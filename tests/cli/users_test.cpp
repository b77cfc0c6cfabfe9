// `fit --users`: as many as `memory` says fit, and the reason why not more.
#include <cstdint>
#include <string>

#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

Json first_answer(const std::string& words) {
  return json_of("fit " + words).at("answers").at(0);
}

TEST(Users, TheCountGoesOnAsFarAsMemoryDoes) {
  const std::string words = "qwen2.5-0.5b --engine ideal --gpu h100 --context 256";
  const Json answer = first_answer(words + " --users");
  const std::int64_t most = answer.at("sequences");
  EXPECT_GT(most, 4096);
  EXPECT_EQ(answer.at("limited_by"), "memory");
  const std::string at = "memory " + words + " --sequences ";
  EXPECT_EQ(run_cli(at + std::to_string(most)).status, 0);
  EXPECT_EQ(run_cli(at + std::to_string(most + 1)).status, 1);
}

TEST(Users, LlamaCppTakesNoMoreThan256) {
  const Json answer =
      first_answer("qwen2.5-0.5b --engine llama.cpp --gpu h100 --context 256 --users");
  EXPECT_EQ(answer.at("sequences"), 256);
  EXPECT_EQ(answer.at("limited_by"), "engine");
  const Ran more = run_cli("memory qwen2.5-0.5b --engine llama.cpp --context 256 --sequences 300");
  EXPECT_EQ(more.status, 2);
  EXPECT_EQ(more.err,
            "kvfathom: --sequences: 300 are more than llama.cpp takes; at most 256 in one "
            "server\n");
}

TEST(Users, VllmIsLimitedByItsOwnCount) {
  const Json answer =
      first_answer("qwen2.5-0.5b --engine vllm --gpu rtx-4090 --context 16 --users");
  EXPECT_EQ(answer.at("sequences"), 256);
  EXPECT_EQ(answer.at("limited_by"), "engine");
}

TEST(UnifiedCache, SequencesShareTheTokensOfOneCache) {
  const std::string words = "llama-3.1-8b --weights q8_0 --engine llama.cpp --gpu rtx-4090 ";
  const Json four = json_of("memory " + words + "--context 8192 --sequences 4 --kv-unified on");
  const Json one = json_of("memory " + words + "--context 32768");
  EXPECT_EQ(four.at("cache").at("bytes"), one.at("cache").at("bytes"));
  EXPECT_EQ(four.at("context_tokens"), 8192);
  const std::string command = four.at("command");
  EXPECT_NE(command.find(" -c 32768 -np 4 "), std::string::npos) << command;
  const Json total =
      json_of("memory " + words + "--total-context 32768 --sequences 4 --kv-unified on");
  EXPECT_EQ(total.at("ledger"), four.at("ledger"));
}

TEST(UnifiedCache, HoldsAsManyUsersAsItsTokensAreEnoughFor) {
  const std::string words = "gemma-3-4b-it --gpu rtx-4090 --engine llama.cpp --context 8192 ";
  const std::int64_t most = first_answer(words + "--users --kv-unified on").at("sequences");
  const std::string at = "memory " + words + "--kv-unified on --sequences ";
  EXPECT_LT(most, 256);
  EXPECT_EQ(run_cli(at + std::to_string(most)).status, 0);
  EXPECT_EQ(run_cli(at + std::to_string(most + 1)).status, 1);
  const Json held = json_of(at + std::to_string(most));
  EXPECT_GE(held.at("cache").at("groups").at(0).at("cells").get<std::int64_t>(), most * 1024);
}

TEST(UnifiedCache, LongestIsTheOneThatMemoryHolds) {
  const std::string words =
      "llama-3.1-8b --weights q8_0 --engine llama.cpp --gpu rtx-4090 --sequences 3 "
      "--kv-unified on";
  const std::int64_t longest = first_answer(words).at("max_context_tokens");
  const std::string at = "memory " + words + " --context ";
  EXPECT_EQ(run_cli(at + std::to_string(longest)).status, 0);
  EXPECT_EQ(run_cli(at + std::to_string(longest + 1)).status, 1);
}

}  // namespace
}  // namespace kvfathom::testing
