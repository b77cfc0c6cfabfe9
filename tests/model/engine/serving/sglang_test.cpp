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
  // 100,000 tokens of one sequence, 80,000 for the windows, and a page of slot 0 of each.
  EXPECT_EQ(plan->evaluate(100000).cache.bytes(), (100001LL + 80001) * 24576);
  // Sixty-four of 4,096: 64 x (128 + 128 + 2) + 4,097 windows fit beside 262,144 full tokens.
  settings.sequences = 64;
  EXPECT_EQ(prepared("sglang", model, settings)->evaluate(4096).cache.bytes(),
            (262145LL + 209716) * 24576);
}

TEST(Sglang, TheTwoPoolsAreWholeTokensEach) {
  // HybridSWAPoolConfigurator (pool_configurator.py, 003fca80) rounds int(0.8 x 32,768) = 26,214
  // tokens for the windows; SWAKVPool (swa_memory_pool.py, 00381c02) makes two pools, and
  // MHATokenToKVPool buffers of size + page_size rows. Each: 12 layers x 8 KV heads x 2 x 64 bf16.
  constexpr std::int64_t kRow = 12LL * 8 * 2 * 64 * 2;
  const CacheReport cache =
      prepared("sglang", catalog("gpt-oss-20b"), serving_settings())->evaluate(32768).cache;
  EXPECT_EQ(cache.bytes(), (32769 + 26215) * kRow);
  EXPECT_EQ(cache.bytes(), 1'449'590'784);
  EXPECT_EQ(cache.k_bytes, cache.v_bytes);
  ASSERT_EQ(cache.groups.size(), 2U);
  const CacheGroup& full = cache.groups[0];
  const CacheGroup& window = cache.groups[1];
  EXPECT_EQ(full.scheme, "full");
  EXPECT_EQ(full.cells, 32768);
  EXPECT_EQ(full.k_bytes + full.v_bytes, 32769 * kRow);
  EXPECT_EQ(window.scheme, "window");
  EXPECT_EQ(window.cells, 26214);
  EXPECT_EQ(window.k_bytes + window.v_bytes, 26215 * kRow);
  // One more token of context grows both: 1.8 x 24,576 = 44,236.8.
  EXPECT_EQ(cache.bytes_per_token, 44237);
  EXPECT_EQ(cache.fixed_bytes_per_sequence, 0);
}

TEST(Sglang, SequencesShareThePoolsAndRanksHaveTheirOwn) {
  EngineSettings settings = serving_settings();
  settings.sequences = 3;
  settings.tensor_parallel = 2;  // four KV heads each
  const CacheReport cache =
      prepared("sglang", catalog("gpt-oss-20b"), settings)->evaluate(10000).cache;
  ASSERT_EQ(cache.groups.size(), 2U);
  EXPECT_EQ(cache.groups[0].cells, 30000);
  EXPECT_EQ(cache.groups[1].cells, 24000);
  EXPECT_EQ(cache.groups[1].streams, 2);
  EXPECT_EQ(cache.bytes(), 2 * (30001LL + 24001) * 12288);
  EXPECT_EQ(cache.bytes_per_token, 44237);
}

TEST(Sglang, AWindowPoolHoldsAtLeastAWindowAndAPage) {
  // 128 + 1 + 1 tokens are 162.5 of the full pool, however short the sequence.
  const auto plan = prepared("sglang", catalog("gpt-oss-20b"), serving_settings());
  EXPECT_EQ(plan->evaluate(1).cache.bytes(), (164LL + 131) * 24576);
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
