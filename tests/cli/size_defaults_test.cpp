// Engines that take larger steps on larger devices: what is said where that costs context.
#include <cstdint>
#include <string>

#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

struct Step {
  const char* words;
  const char* below;  ///< the step
  const char* above;
  const char* options;
  const char* rule;
};

class SizeDefaults : public ::testing::TestWithParam<Step> {};

Json answer_of(const std::string& words) {
  return json_of("fit " + words).at("answers").at(0);
}

TEST_P(SizeDefaults, AreNotedAboveTheStepWithWhatTakesTheSmallerValue) {
  const Step& step = GetParam();
  const std::string words(step.words);
  const Json below = answer_of(words + " --memory " + step.below);
  const Json above = answer_of(words + " --memory " + step.above);
  EXPECT_LT(above.at("max_context_tokens"), below.at("max_context_tokens"));
  EXPECT_EQ(below.at("scheme").at("notes").dump().find(step.rule), std::string::npos);
  const std::string notes = above.at("scheme").at("notes").dump();
  EXPECT_NE(notes.find(std::string(step.options) + " would hold more: " + step.rule),
            std::string::npos)
      << notes;
  const Json smaller = answer_of(words + " --memory " + step.above + " " + step.options);
  EXPECT_GT(smaller.at("max_context_tokens"), above.at("max_context_tokens"));
}

INSTANTIATE_TEST_SUITE_P(
    Engines,
    SizeDefaults,
    ::testing::Values(Step{"glm-4.7-flash --engine vllm",
                           "69.9GiB",
                           "74GiB",
                           "--max-batched-tokens 2048 --max-sequences 256",
                           "from 70.00 GiB on a step of vllm has "},
                      Step{"seed-oss-36b-instruct --weights fp8 --engine sglang",
                           "59.9GiB",
                           "60.1GiB",
                           "--max-batched-tokens 4096",
                           "from 60.00 GiB on a step of sglang has 8,192 tokens, below 4,096."}));

}  // namespace
}  // namespace kvfathom::testing
