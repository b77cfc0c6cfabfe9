// SGLang's pools: the logged size of one, and windows beside full layers.
#include <optional>
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

TEST(Sglang, ADeviceOfWhichItsShareIsNothingIsRefused) {
  // By hand: 512 + 1.5 x 2,048 + 2 x 8 + 1,024 / 8 = 3,728 MiB are kept free.
  const auto refusal = [](std::int64_t device_mib, std::optional<double> share) {
    EngineSettings settings = serving_settings();
    settings.device_memory_bytes = device_mib << 20;
    settings.gpu_memory_utilization = share;
    try {
      prepared("sglang", catalog("qwen3-0.6b"), settings);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("none");
  };
  EXPECT_EQ(refusal(3728, {}),
            "--gpu-memory-utilization: sglang's own share of a device of 3728 MiB is nothing; give "
            "one, or a larger device");
  EXPECT_EQ(refusal(3728, 0.5), "none");
  EXPECT_EQ(refusal(3800, {}), "none");
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

std::string refusal(const char* model, std::int64_t stages) {
  EngineSettings settings = serving_settings();
  settings.pipeline_parallel = stages;
  try {
    prepared("sglang", catalog(model), settings);
  } catch (const Unsupported& error) {
    return error.found();
  }
  return "none";
}

TEST(Sglang, RefusesWindowsWithoutARule) {
  EXPECT_EQ(refusal("llama-4-scout-17b-16e-instruct", 1),
            "sglang: no rule for the pool of its chunked window layers");
  EXPECT_EQ(refusal("gemma-4-e2b-it", 1),
            "sglang: no rule for windows beside layers that share a cache");
  EXPECT_EQ(refusal("gpt-oss-20b", 2), "sglang: no rule for a window's pool in pipeline stages");
  EXPECT_EQ(refusal("gpt-oss-20b", 1), "none");
}

/// GiB, as the logs round them, of `slots` of a rank's states. The pool has one slot more.
double states_gib(const char* model, std::int64_t ranks, std::int64_t slots) {
  EngineSettings settings = serving_settings();
  settings.tensor_parallel = ranks;
  settings.sequences = 2;  // ten slots and the spare one
  const CacheReport cache = prepared("sglang", catalog(model), settings)->evaluate(1).cache;
  const std::int64_t slot_bytes = cache.state_bytes / ranks / 11;
  return static_cast<double>(slot_bytes * (slots + 1)) / static_cast<double>(kGiB);
}

// "Mamba Cache is allocated. max_mamba_cache_size: .., conv_state size: .., ssm_state size: ..":
// Qwen3.8-27B, of Qwen3.6's shape (360, 0.99 and 50.77 GB); Qwen3.5-9B's shape (64, 0.07 and
// 3.05); Qwen3-Next on four ranks (500, 0.21 and 8.81); a Nemotron-3-Nano on four (2211, 0.44 and
// 24.84).
TEST(Sglang, StatesHaveTheLoggedSlots) {
  EXPECT_NEAR(states_gib("qwen3.6-27b-nvfp4", 1, 360), 0.99 + 50.77, 0.01);
  EXPECT_NEAR(states_gib("qwen3.5-9b", 1, 64), 0.07 + 3.05, 0.01);
  EXPECT_NEAR(states_gib("qwen3-next-80b-a3b-thinking", 4, 500), 0.21 + 8.81, 0.01);
  EXPECT_NEAR(states_gib("nvidia-nemotron-3-nano-30b-a3b-bf16", 4, 2211), 0.44 + 24.84, 0.01);
}

// The same Nemotron: 19,644,177 tokens in fp8, 14.05 GB of K and of V on each rank, which has one
// of two KV heads in six layers. What the engine left them is 1 / 0.9 of the states.
TEST(Sglang, TokensHaveTheRest) {
  EngineSettings settings = serving_settings();
  settings.tensor_parallel = 4;
  settings.cache_type_k = settings.cache_type_v = DType::f8_e4m3;
  settings.sequences = 442;  // 2,210 slots
  const auto plan = prepared("sglang", catalog("nvidia-nemotron-3-nano-30b-a3b-bf16"), settings);
  const std::int64_t rank = plan->evaluate(1).cache.state_bytes / 4;
  const double tokens_gib = static_cast<double>(rank) / static_cast<double>(kGiB) / 0.9;
  const auto available = rank + static_cast<std::int64_t>(tokens_gib * static_cast<double>(kGiB));
  EXPECT_NEAR(static_cast<double>(plan->pool(available, 8192).value().tokens),
              19'644'177,
              0.001 * 19'644'177);
}

// A drafter of 15 tokens beside Qwen3.5-9B's shape, 64 requests: "intermediate_ssm_state_cache
// size: 48.75GB intermediate_conv_window_cache size: 0.43GB".
TEST(Sglang, VerifiedTokensHaveTheLoggedStates) {
  EngineSettings settings = serving_settings();
  settings.sequences = 64;
  const ModelSpec model = catalog("qwen3.5-9b");
  const std::int64_t alone = prepared("sglang", model, settings)->evaluate(1).cache.state_bytes;
  settings.draft_tokens = 15;
  const auto plan = prepared("sglang", model, settings);
  const std::int64_t drafted = plan->evaluate(1).cache.state_bytes;
  EXPECT_NEAR(static_cast<double>(drafted - alone) / static_cast<double>(kGiB), 48.75 + 0.43, 0.01);
  EXPECT_NE(plan->command(4096, "m").find(" --max-running-requests 64"), std::string::npos);
}

TEST(Sglang, ARequestTakesFiveSlotsWhichItsCommandAsksFor) {
  EngineSettings settings = serving_settings();
  settings.sequences = 3;
  const auto plan = prepared("sglang", catalog("qwen3.5-9b"), settings);
  // by hand: 24 layers of 32 x 128 x 128 in f32, and of 3 x (32 x 128 + 2 x 16 x 128) in bf16
  constexpr std::int64_t kSlot = 24LL * (32 * 128 * 128 * 4 + 3 * 8192 * 2);
  const MemoryReport report = plan->evaluate(4096);
  EXPECT_EQ(report.cache.state_bytes, 16 * kSlot);
  EXPECT_EQ(report.ledger.bytes_of(LedgerKind::state), 16 * kSlot);
  EXPECT_EQ(report.cache.fixed_bytes_per_sequence, 5 * kSlot);
  // 8 layers of 4 KV heads of 256, K and V in bf16, and the page of slot 0
  EXPECT_EQ(report.ledger.bytes_of(LedgerKind::cache), (3 * 4096LL + 1) * 8 * 4 * 256 * 2 * 2);
  EXPECT_NE(plan->command(4096, "m").find(" --max-mamba-cache-size 15"), std::string::npos);
  settings.data_parallel = 2;  // two replicas, of two requests and of one
  EXPECT_NE(prepared("sglang", catalog("qwen3.5-9b"), settings)
                ->command(4096, "m")
                .find(" --max-mamba-cache-size 10"),
            std::string::npos);
  settings = serving_settings();
  EXPECT_EQ(prepared("sglang", catalog("qwen3-32b"), settings)->command(4096, "m").find("mamba"),
            std::string::npos);
}

TEST(Sglang, RefusesStatesWithoutARule) {
  for (const char* model : {"lfm2-1.2b", "ai21-jamba-1.5-mini", "minimax-m1-80k"}) {
    EXPECT_EQ(refusal(model, 1), "sglang: no rule for the pool of its state layers") << model;
  }
  EXPECT_EQ(refusal("mamba2-2.7b", 1), "sglang: no rule for states without attention beside");
  EXPECT_EQ(refusal("qwen3.5-9b", 2), "sglang: no rule for a pool of states in pipeline stages");
}

}  // namespace
}  // namespace kvfathom::testing
