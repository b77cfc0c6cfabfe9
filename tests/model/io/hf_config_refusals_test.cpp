// What is no config of a model that is known is refused: the whole line, each time.
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "model/error.h"
#include "model/io/hf_config.h"
#include "tests/catalog_entries.h"

namespace kvfathom {
namespace {

const std::string kConfigs = std::string(KVFATHOM_SOURCE_DIR) + "/tests/data/configs/";

std::string refusal_of_text(const std::string& text) {
  try {
    (void)read_hf_config_text(text, "config.json");
  } catch (const Error& e) {
    return std::to_string(e.exit_code()) + " " + e.what();
  }
  return "accepted";
}

/// Qwen3-8B's config with a JSON patch.
std::string refusal(const std::string& patch) {
  return refusal_of_text(
      catalog::patched(catalog::read_all(kConfigs + "Qwen--Qwen3-8B.json"), patch));
}

TEST(HfConfigRefusals, FieldsOutOfRangeAreNamed) {
  EXPECT_EQ(refusal("{}"), "accepted");
  EXPECT_EQ(refusal(R"({"num_attention_heads": 0})"),
            "2 config.json: \"num_attention_heads\": 0 is out of range; an integer from 1 to 4096");
  EXPECT_EQ(refusal(R"({"hidden_size": -4096})"),
            "2 config.json: \"hidden_size\": -4096 is out of range; an integer from 1 to 1048576");
  EXPECT_EQ(refusal(R"({"num_hidden_layers": 36.5})"),
            "2 config.json: \"num_hidden_layers\": 36.5 is not an integer; an integer from 1 to "
            "2048");
  EXPECT_EQ(refusal(R"({"vocab_size": 18446744073709551615})"),
            "2 config.json: \"vocab_size\": 18446744073709551615 is out of range; an integer from "
            "1 to 16777216");
  EXPECT_EQ(refusal(R"({"head_dim": "128"})"),
            "2 config.json: \"head_dim\": \"128\" is not an integer; an integer from 1 to 4096");
  EXPECT_EQ(refusal(R"({"intermediate_size": null})"),
            "2 config.json: \"intermediate_size\": missing; an integer from 1 to 1048576");
  EXPECT_EQ(refusal(R"({"tie_word_embeddings": "no"})"),
            "2 config.json: \"tie_word_embeddings\": \"no\" is not a truth value; true or false");
  EXPECT_EQ(refusal(R"({"partial_rotary_factor": 2})"),
            "2 config.json: \"partial_rotary_factor\": 2 is out of range; a number from 0 to 1");
  EXPECT_EQ(refusal(R"({"num_key_value_heads": 5})"),
            "2 config.json: \"num_key_value_heads\": 5 does not divide the 32 query heads; a "
            "divisor of num_attention_heads");
}

TEST(HfConfigRefusals, FieldsThatTogetherMakeNoModelAreRefused) {
  EXPECT_EQ(refusal(R"({"hidden_size": 1048576, "intermediate_size": 1048576,
                        "num_hidden_layers": 2048})"),
            "2 config.json: describes more than 1e15 parameters; fewer");
}

TEST(HfConfigRefusals, RoutingIsNamedWhereItIsNotUnderstood) {
  const std::string v3 = catalog::read_all(kConfigs + "deepseek-ai--DeepSeek-V3.json");
  EXPECT_EQ(refusal_of_text(catalog::patched(v3, R"({"scoring_func": "tanh"})")),
            "2 config.json: \"scoring_func\": \"tanh\" is not understood; softmax or sigmoid");
  EXPECT_EQ(refusal_of_text(catalog::patched(v3, R"({"n_group": 7})")),
            "2 config.json: \"n_group\": 7 groups of 256 experts; a divisor");
  EXPECT_EQ(refusal_of_text(catalog::patched(v3, R"({"topk_group": 9})")),
            "2 config.json: \"topk_group\": 9 is out of range; an integer from 1 to 8");
  EXPECT_EQ(refusal_of_text(catalog::patched(v3, R"({"routed_scaling_factor": -1})")),
            "2 config.json: \"routed_scaling_factor\": -1 is out of range; above 0");
}

TEST(HfConfigRefusals, ListsMustFitTheLayers) {
  const std::string gpt_oss = catalog::read_all(kConfigs + "openai--gpt-oss-20b.json");
  EXPECT_EQ(refusal_of_text(catalog::patched(gpt_oss, R"({"layer_types": ["full_attention"]})")),
            "2 config.json: \"layer_types\": a list of 1; one entry for each of 24 layers");
  EXPECT_EQ(refusal_of_text(catalog::patched(gpt_oss, R"({"num_hidden_layers": 1,
                                                          "layer_types": ["ring"]})")),
            "2 config.json: \"layer_types\": \"ring\" is no kind of layer here; full_attention or "
            "sliding_attention");
  EXPECT_EQ(refusal_of_text(catalog::patched(gpt_oss, R"({"num_experts_per_tok": 33})")),
            "2 config.json: \"num_experts_per_tok\": 33 is out of range; an integer from 1 to 32");
}

TEST(HfConfigRefusals, NestedFieldsAreNamedWithTheirPath) {
  const std::string gemma = catalog::read_all(kConfigs + "google--gemma-3-4b-it.json");
  EXPECT_EQ(refusal_of_text(catalog::patched(gemma, R"({"text_config": {"sliding_window": 0}})")),
            "2 config.json: \"text_config.sliding_window\": 0 is out of range; an integer from 1 "
            "to 1073741824");
}

TEST(HfConfigRefusals, UnknownModelTypesAreListedAgainstTheKnown) {
  std::string known;
  for (const std::string_view name : hf_model_types()) {
    known.append(known.empty() ? "" : ", ").append(name);
  }
  EXPECT_NE(known.find("deepseek_v3, "), std::string::npos);
  EXPECT_EQ(refusal(R"({"model_type": "bert"})"),
            "3 config.json: \"model_type\": \"bert\" is an encoder, which keeps no cache; one of " +
                known);
  EXPECT_EQ(refusal(R"({"model_type": "qwen9"})"),
            "3 config.json: \"model_type\": \"qwen9\" is not known; one of " + known);
  EXPECT_EQ(refusal(R"({"model_type": "deepseek_v4"})"),
            "3 config.json: \"model_type\": \"deepseek_v4\" attends over compressed tokens (CSA, "
            "HCA), which is not modelled; one of " +
                known);
  EXPECT_EQ(refusal_of_text("{}"), "2 config.json: \"model_type\": missing; a string");
  EXPECT_EQ(refusal_of_text(R"({"architectures": ["BertModel"]})"),
            "3 config.json: \"model_type\": missing (the class is BertModel); one of " + known);
}

TEST(HfConfigRefusals, TextThatIsNoObjectIsRefused) {
  EXPECT_EQ(refusal_of_text("[1, 2"),
            "2 config.json: not JSON: bad or missing text at byte 6; a JSON object");
  EXPECT_EQ(refusal_of_text("[1, 2]"), "2 config.json: a list is not an object; a JSON object");
  EXPECT_EQ(refusal_of_text(R"({"a": 1e999})"),
            "2 config.json: a number too large to represent; numbers below 1e308");
  const std::string deep(1'000'000, '[');
  EXPECT_EQ(refusal_of_text(R"({"x": )" + deep),
            "2 config.json: nesting deeper than 64 at byte 69; at most 64 levels");
}

TEST(HfConfigRefusals, BracketsAndInfinitiesInStringsAreText) {
  EXPECT_EQ(refusal(R"({"note": "[[[[ Infinity \" NaN {{{{", "more": -1.5})"), "accepted");
  EXPECT_EQ(
      refusal_of_text(R"({"model_type": "Infinity", "x": -Infinity, "y": NaN})").substr(0, 52),
      "3 config.json: \"model_type\": \"Infinity\" is not known");
}

}  // namespace
}  // namespace kvfathom
