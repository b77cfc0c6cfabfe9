// What decides the groups of vLLM's pool and is not the same in every version.
#include <algorithm>
#include <variant>

#include <gtest/gtest.h>

#include "model/engine/engine.h"
#include "tests/model/engine/serving/catalog_plan.h"

namespace kvfathom::testing {
namespace {

TEST(Vllm, StatesOfCachedPrefixesAreThereTwice) {
  // Issue 40691 of vLLM, a log of 0.19.0 for Qwen3.5-27B, whose prefixes were not cached yet:
  // 33.04 x 32,768 tokens in 290,864 / 784 / 4 tables of blocks; 42 of attention, 784 tokens each,
  // and 3 states. Cached, the states are 6.
  const ModelSpec model = catalog("qwen3.5-27b");
  EngineSettings settings = serving_settings();
  settings.missing_behaviours = {"cached-states"};
  const auto concurrency = [&] {
    return prepared("vllm", model, settings)->pool(1487LL * 16 * 784 * 4096, 32768)->concurrency;
  };
  EXPECT_NEAR(concurrency(), 33.04, 0.006);
  EXPECT_EQ(1487 / 4 * 784, 290864);
  settings.missing_behaviours = {};
  EXPECT_NEAR(concurrency(), 1487.0 / (42 + 6), 1e-9);
}

TEST(Vllm, LayersOfNearlyEqualCountsShareTheLargerGroup) {
  // gpt-oss-20b with a drafter, the example of vLLM's pull request 36684: 12 windows and 17 full
  // layers, "a ratio of 17/12 = 1.42 which exceeds 1.25"; 12 and 13 are 29303's. 8,192 tokens are
  // 512 blocks of full attention and, for 127 + 2048 tokens, 137 of windows.
  ModelSpec model = catalog("gpt-oss-20b");
  const auto full = std::ranges::find_if(model.layers, [](const LayerSpec& layer) {
    return !std::get<Attention>(layer.mixer).window_tokens;
  });
  const LayerSpec layer = *full;
  model.layers.insert(model.layers.end(), 5, layer);
  EngineSettings settings = serving_settings();
  const auto bytes = [&] {
    return prepared("vllm", model, settings)->evaluate(8192).cache.bytes();
  };
  constexpr std::int64_t kPage = 16LL * 2048;
  EXPECT_EQ(bytes(), 17 * kPage * (512 + 137));
  settings.missing_behaviours = {"wider-near-equal"};
  EXPECT_EQ(bytes(), 12 * kPage * (2 * 512 + 137));
  model.layers.resize(model.layers.size() - 4);  // 12 and 13
  EXPECT_EQ(bytes(), 13 * kPage * (512 + 137));
  settings.missing_behaviours = {"near-equal-groups", "wider-near-equal"};
  EXPECT_EQ(bytes(), 12 * kPage * (2 * 512 + 137));
}

TEST(Vllm, StepsAreLargerOnLargeDevices) {
  // --max-num-batched-tokens by default: 2,048, on devices of 70 GiB and more 8,192, and 16,384
  // since vLLM's pull request 51726. gpt-oss-20b's windows of 128 hold a step beside themselves.
  EngineSettings settings = serving_settings();
  const auto windows = [&](std::int64_t gib) {
    settings.device_memory_bytes = gib << 30;
    const auto cache = prepared("vllm", catalog("gpt-oss-20b"), settings)->evaluate(131072).cache;
    return cache.bytes() / (12LL * 16 * 2048) - 131072 / 16 - 1;
  };
  EXPECT_EQ(windows(40), (127 + 2048 + 15) / 16);
  EXPECT_EQ(windows(80), (127 + 16384 + 15) / 16);
  settings.missing_behaviours = {"larger-steps"};
  EXPECT_EQ(windows(80), (127 + 8192 + 15) / 16);
}

}  // namespace
}  // namespace kvfathom::testing
