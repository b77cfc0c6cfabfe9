#include "model/engine/history.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "model/engine/llama_cpp/behaviours.h"
#include "model/engine/vllm/behaviours.h"
#include "model/error.h"
#include "model/io/engine_history_json.h"

namespace kvfathom {
namespace {

const EngineHistory& llama_history() {
  static const EngineHistory kHistory =
      read_engine_history(KVFATHOM_SOURCE_DIR "/data/engines/llama.cpp.json");
  return kHistory;
}

bool lacks(const std::string& version, const std::string& behaviour) {
  const auto ids = missing_behaviours(llama_history(), version);
  return std::ranges::find(ids, behaviour) != ids.end();
}

TEST(EngineHistory, BuildsDatesAndReleasesSelectTheSameRules) {
  EXPECT_TRUE(lacks("b7831", "v-less-mla"));
  EXPECT_FALSE(lacks("b7832", "v-less-mla"));
  EXPECT_TRUE(lacks("2026-01-24", "v-less-mla"));
  EXPECT_FALSE(lacks("2026-01-25", "v-less-mla"));
  EXPECT_TRUE(lacks("2025-05-01", "window-cells"));
  EXPECT_FALSE(lacks("b5429", "window-cells"));
  EXPECT_TRUE(missing_behaviours(llama_history(), "0.5.0").empty());
  EXPECT_TRUE(missing_behaviours(llama_history(), "").empty());
}

TEST(EngineHistory, IsOrderedAndEachBehaviourHasARule) {
  const auto& behaviours = llama_history().behaviours;
  EXPECT_TRUE(std::ranges::is_sorted(behaviours, {}, &EngineBehaviour::first_build));
  EXPECT_TRUE(std::ranges::is_sorted(behaviours, {}, &EngineBehaviour::first_date));
  for (const EngineBehaviour& behaviour : behaviours) {
    EXPECT_NO_THROW((void)llama_cpp::behaviours_without({behaviour.id})) << behaviour.id;
    EXPECT_TRUE(behaviour.source.starts_with("https://github.com/ggml-org/llama.cpp/pull/"));
  }
  EXPECT_THROW((void)llama_cpp::behaviours_without({"unheard-of"}), Unsupported);
}

TEST(EngineHistory, OfVllmHasReleasesAndNoBuilds) {
  const EngineHistory vllm =
      read_engine_history(std::string(KVFATHOM_SOURCE_DIR) + "/data/engines/vllm.json");
  EXPECT_TRUE(std::ranges::is_sorted(vllm.behaviours, {}, &EngineBehaviour::first_date));
  EXPECT_TRUE(std::ranges::is_sorted(vllm.releases, {}, &EngineRelease::date));
  for (const EngineBehaviour& behaviour : vllm.behaviours) {
    EXPECT_NO_THROW((void)vllm::behaviours_without({behaviour.id})) << behaviour.id;
  }
  EXPECT_THROW((void)vllm::behaviours_without({"unheard-of"}), Unsupported);
  EXPECT_TRUE(missing_behaviours(vllm, vllm.releases.back().version).empty());
  const std::vector<std::string> unlogged{"cached-states", "larger-steps"};
  EXPECT_EQ(missing_behaviours(vllm, vllm.newest_version), unlogged);
  EXPECT_EQ(missing_behaviours(vllm, "0.13.0"),
            (std::vector<std::string>{"draft-model",
                                      "shared-head",
                                      "wider-near-equal",
                                      "graphs-in-budget",
                                      "nvfp4-cache",
                                      "cached-states",
                                      "larger-steps"}));
  EXPECT_EQ(missing_behaviours(vllm, "0.11.2").front(), "near-equal-groups");  // pull 29303
  EXPECT_THROW((void)missing_behaviours(vllm, "b9000"), InputError);
}

std::string message_for(const std::string& version) {
  try {
    (void)missing_behaviours(llama_history(), version);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(EngineHistory, RefusesWhatItDoesNotKnow) {
  EXPECT_EQ(
      message_for("b4000"),
      "--engine-version: \"b4000\" is older than what is known of llama.cpp; the oldest known "
      "is b4881");
  EXPECT_EQ(message_for("2024-02-01"),
            "--engine-version: \"2024-02-01\" is older than what is known of llama.cpp; the oldest "
            "known is 2025-03-13");
  for (const char* version : {"b", "b12x", "0.9", "2026-13-01", "latest", "2026-1-1"}) {
    EXPECT_EQ(message_for(version),
              "--engine-version: \"" + std::string(version) +
                  "\" is no version of llama.cpp; use a build (b9000), a date (2026-01-24) or a "
                  "release (0.1.0, 0.2.0, 0.5.0)");
  }
}

}  // namespace
}  // namespace kvfathom
