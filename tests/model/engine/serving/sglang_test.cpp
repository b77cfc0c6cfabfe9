// SGLang's pools: the logged size of one, and windows beside full layers.
#include <string>

#include <gtest/gtest.h>

#include "model/error.h"
#include "tests/model/engine/serving/catalog_plan.h"

namespace kvfathom::testing {
namespace {

TEST(Sglang, PoolHoldsTheLoggedTokens) {
  // SGLang on four H100: K and V of 8.23 GiB each hold 367,404 tokens.
  EngineSettings settings = serving_settings();
  settings.tensor_parallel = 4;
  const auto pool = prepared("sglang", catalog("qwen3-235b-a22b"), settings)
                        ->pool(static_cast<std::int64_t>(16.46 * kGiB), 4096);
  EXPECT_NEAR(static_cast<double>(pool.value().tokens), 367404, 367404 * 0.001);
}

TEST(Sglang, WindowsHaveAPoolOfTheirOwn) {
  // By hand: twelve full and twelve windowed layers of 2,048 bytes per token. 0.8 window tokens
  // per full one make cells of 12 x 2,048 x 1.8 = 44,236.8 bytes.
  EngineSettings settings = serving_settings();
  settings.max_batched_tokens = 2048;
  const ModelSpec model = catalog("gpt-oss-20b");
  const auto plan = prepared("sglang", model, settings);
  const CachePool pool = plan->pool(std::int64_t{10} << 30, 100000).value();
  EXPECT_NEAR(static_cast<double>(pool.tokens), 242725, 3);
  EXPECT_NEAR(pool.concurrency, 2.42725, 0.0001);  // the full layers bind
  // Short sequences are bound by the 194,180 tokens for the windows: one of 200 holds 200 of them,
  // one of 300 128 + 128 + 2 beside the two chunks and a page in flight.
  const auto concurrency = [&](std::int64_t context) {
    return plan->pool(std::int64_t{10} << 30, context).value().concurrency;
  };
  EXPECT_NEAR(concurrency(200), 194180.0 / 200, 0.1);
  EXPECT_NEAR(concurrency(300), (194180.0 - 4097.0) / 258, 0.1);
  // 100,000 tokens of one sequence, and a page of slot 0.
  EXPECT_NEAR(static_cast<double>(plan->evaluate(100000).cache.bytes()), 100001 * 44236.8, 100001);
  // Sixty-four of 4,096: 64 x (128 + 128 + 2) + 4,097 windows fit beside 262,144 full tokens.
  settings.sequences = 64;
  EXPECT_NEAR(
      static_cast<double>(prepared("sglang", model, settings)->evaluate(4096).cache.bytes()),
      (64 * 4096 + 1) * 44236.8,
      300000);
}

TEST(Sglang, AWindowPoolHoldsAtLeastAWindowAndAPage) {
  // 128 + 1 + 1 tokens are 162.5 of the full pool, however short the sequence.
  const auto plan = prepared("sglang", catalog("gpt-oss-20b"), serving_settings());
  EXPECT_EQ(plan->evaluate(1).cache.bytes(), (163 + 1) * 44237);
}

TEST(Sglang, WindowsOfOtherArchitecturesHoldEveryToken) {
  const auto bytes = [](const ModelSpec& model, CacheScheme scheme) {
    EngineSettings settings = serving_settings();
    settings.scheme = scheme;
    return prepared("sglang", model, settings)->evaluate(9999).cache.bytes();
  };
  const ModelSpec gemma = catalog("gemma-3-27b-it");  // 62 layers of 16 KV heads of 128
  EXPECT_EQ(bytes(gemma, CacheScheme::native), 10000LL * 62 * 16 * 128 * 2 * 2);
  EXPECT_EQ(bytes(catalog("gpt-oss-20b"), CacheScheme::full), 10000LL * 24 * 2048);
}

TEST(Sglang, RefusesWindowsWithoutARule) {
  const auto refusal = [](const char* model, std::int64_t stages) {
    EngineSettings settings = serving_settings();
    settings.pipeline_parallel = stages;
    try {
      prepared("sglang", catalog(model), settings);
    } catch (const Unsupported& error) {
      return error.found();
    }
    return std::string("none");
  };
  EXPECT_EQ(refusal("llama-4-scout-17b-16e-instruct", 1),
            "sglang: no rule for the pool of its chunked window layers");
  EXPECT_EQ(refusal("gemma-4-e2b-it", 1),
            "sglang: no rule for windows beside layers that share a cache");
  EXPECT_EQ(refusal("gpt-oss-20b", 2), "sglang: no rule for a window's pool in pipeline stages");
  EXPECT_EQ(refusal("gpt-oss-20b", 1), "none");
}

}  // namespace
}  // namespace kvfathom::testing
