// The arms and their mixes against what papers print and what follows by hand.
#include "model/crossover/crossover.h"

#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "model/cache/request_text.h"
#include "model/cache/residual.h"
#include "model/crossover/prefix.h"
#include "model/io/hardware_json.h"
#include "model/latency/datasheet_laws.h"
#include "tests/model/catalog.h"

namespace kvfathom {
namespace {

using testing::catalog;

// Mooncake (FAST'25) s2.2: Llama-3-70B, 8192 tokens: 6 GB/s on 8 x A800 (312 TFLOP/s each), 19 on
// 8 x H800 (989), by its count of l (4 p^2 d + 22 p d^2) FLOPs: 5.86 and 18.6. Attention that is
// causal and the model's own matrices make it 5.54 and 17.6.
TEST(Crossover, MooncakesBound) {
  const ModelSpec llama = catalog("meta-llama-3-70b");
  std::vector<Op> ops;
  StepOps(llama, {}).emit({.phase = Phase::prefill, .n_new_tokens = 8192}, ops);
  double flops = 0.0;
  for (const Op& op : ops) {
    flops += static_cast<double>(op.n_times) * op.cost.flops.value();
  }
  const double kv_bytes = 8192.0 * 80.0 * 2.0 * 1024.0 * 2.0;
  EXPECT_NEAR(kv_bytes / flops * 8.0 * 312e12 / 1e9, 5.54, 0.005);
  EXPECT_NEAR(kv_bytes / flops * 8.0 * 989e12 / 1e9, 17.6, 0.05);
  const double d = 8192.0;
  const double its_own = 80.0 * (4.0 * d * d * d + 22.0 * d * d * d);
  EXPECT_NEAR(kv_bytes / its_own * 8.0 * 312e12 / 1e9, 5.86, 0.005);
  EXPECT_NEAR(flops / its_own, 5.86 / 5.54, 0.001);
}

// XQuant (arXiv 2508.10395, s3.4): up to 2.3K tokens of Llama-2-7B and 40.6K of Llama-3.1-8B (2281
// and 41610 by its formula) rebuilding from 2-bit X hides behind reading a layer, on an H100 PCIe:
// its FLOPs are 378 (the ridge) times the bytes of the layer's weights and of X.
TEST(Crossover, XQuantsComputeBoundLimits) {
  struct Limit {
    const char* model;
    std::int64_t n_tokens;
    double x_bytes_per_token;  // 2 bits of hidden_size values, or of two latents as wide as K, V
  };
  for (const Limit& limit : {Limit{"llama-2-7b-hf", 2281, 4096.0 / 4.0},
                             Limit{"llama-3.1-8b", 41610, 2.0 * 1024.0 / 4.0}}) {
    const ModelSpec model = catalog(limit.model);
    LatencySettings settings;
    settings.scheme = cache::parse_scheme("xquant:bits=2").request;
    constexpr std::int64_t kRecent = 128;  // tokens that are kept as they are
    std::vector<Op> ops;
    StepOps(model, settings).emit({.n_cached_tokens = limit.n_tokens + kRecent - 1}, ops);
    double weights = 0.0;
    double rebuild_flops = 0.0;
    for (const Op& op : ops) {
      weights += op.part == "output head" ? 0.0 : op.weights.value();
      rebuild_flops += op.part == "rebuild k v" ? op.cost.flops.value() : 0.0;
    }
    const double x_bytes = static_cast<double>(limit.n_tokens) * limit.x_bytes_per_token;
    EXPECT_NEAR(rebuild_flops / (weights + x_bytes), 378.0, 0.01 * 378.0) << limit.model;
  }
}

// HCache (arXiv 2410.05004): 24 GB/s for 7B on an A100 is F b / (4 kvd) at 63 % of 312 TFLOP/s.
TEST(Crossover, HCachesBalance) {
  EXPECT_NEAR(cache::balanced_bandwidth_bytes_per_s(0.63 * 312e12, 2, 4096) / 1e9, 24.0, 0.05);
}

// PCIe 4.0 at 25 GB/s and 10 us a call: 32 KiB pieces reach about a tenth of what 2 MiB ones do.
TEST(Link, SmallPiecesSpendTheirTimeOnCalls) {
  Link link{.bandwidth = BytesPerSecond(25e9), .call = Seconds(10e-6)};
  const Bytes size(1024.0 * 1024.0 * 1024.0);
  const double large = (size / transfer_time(link, size)).value();
  link.piece = Bytes(32.0 * 1024.0);
  const double small = (size / transfer_time(link, size)).value();
  EXPECT_NEAR(large / 1e9, 22.3, 0.1);
  EXPECT_NEAR(small / large, 0.13, 0.01);
  EXPECT_EQ(transfer_time(link, Bytes()), Seconds());
}

TEST(Link, BandwidthForATimeTakesThatTime) {
  Link link{.bandwidth = BytesPerSecond(1.0), .call = Seconds(10e-6)};
  const Bytes size(3e9);
  link.bandwidth = bandwidth_for(link, size, Seconds(0.2));
  EXPECT_NEAR(transfer_time(link, size).value(), 0.2, 1e-12);
  EXPECT_EQ(bandwidth_for(link, size, Seconds(1e-6)), BytesPerSecond());
}

TEST(Crossover, APipelineTakesItsBusiestResourceAndOneStageOfTheOther) {
  const ArmCost cost{.link = Seconds(8.0), .compute = Seconds(4.0), .n_stages = 4};
  // By hand: four stages of 2 s on the link, each followed by 1 s of compute: 8 + 1.
  EXPECT_DOUBLE_EQ(overlapped(cost).value(), 9.0);
  EXPECT_DOUBLE_EQ(
      overlapped({.link = {}, .compute = Seconds(4.0), .memory = Seconds(5.0)}).value(), 5.0);
}

TEST(Crossover, LoadSlowsWhatItTakes) {
  const ArmCost idle{.link = Seconds(1.0), .compute = Seconds(1.0), .memory = Seconds(1.0)};
  const ArmCost busy =
      under_load(idle, {.compute_share = 0.5, .queued = Seconds(0.25), .link_share = 0.2});
  EXPECT_DOUBLE_EQ(busy.compute.value(), 2.0);
  EXPECT_DOUBLE_EQ(busy.link.value(), 1.5);
}

// A link that nothing waits for lands K and V whatever the kernels do.
TEST(Crossover, LoadOnComputeLeavesTransfersAlone) {
  const ArmCost idle{.link = Seconds(1.0), .compute = {}, .memory = Seconds(0.5)};
  const ArmCost busy = under_load(idle, {.compute_share = 0.9, .queued = {}});
  EXPECT_DOUBLE_EQ(busy.link.value(), 1.0);
  EXPECT_DOUBLE_EQ(busy.memory.value(), 0.5);
}

// 100 ns a token and 1 ms of latency against 200 ns a token: they meet at 10,000.
TEST(Crossover, ReignsChangeWhereTheLinesMeet) {
  const auto fetch = [](std::int64_t n) { return 1e-3 + 100e-9 * static_cast<double>(n); };
  const auto rebuild = [](std::int64_t n) { return 200e-9 * static_cast<double>(n); };
  const auto all = reigns(fetch, rebuild, 1'000'000);
  ASSERT_EQ(all.size(), 2U);
  EXPECT_FALSE(all[0].fetch);
  EXPECT_TRUE(all[1].fetch);
  EXPECT_NEAR(static_cast<double>(all[1].from_tokens), 10'000.0, 1.0);
  EXPECT_EQ(reigns(fetch, rebuild, 100).size(), 1U);
}

// A floor under rebuilding (the weights are read whatever the length) and its square above: fetch
// wins at both ends.
TEST(Crossover, ReignsMayChangeTwice) {
  const auto fetch = [](std::int64_t n) { return 1e-4 * static_cast<double>(n); };
  const auto rebuild = [](std::int64_t n) {
    const auto x = static_cast<double>(n);
    return 5e-3 + 2e-5 * x + 1e-9 * x * x;
  };
  const auto all = reigns(fetch, rebuild, 1'000'000);
  ASSERT_EQ(all.size(), 3U);
  // 1e-9 x^2 - 8e-5 x + 5e-3 = 0 at 62.55 and 79937.45.
  EXPECT_EQ(all[1].from_tokens, 63);
  EXPECT_EQ(all[2].from_tokens, 79938);
}

// Linear arms of 1 and 3 ms a token meet at three quarters computed.
TEST(Crossover, ATokenSplitMeetsInBetween) {
  const auto fetch = [](std::int64_t n) { return 3e-3 * static_cast<double>(n); };
  const auto rebuild = [](std::int64_t n) { return 1e-3 * static_cast<double>(n); };
  const Split split = best_token_split(fetch, rebuild, 1000);
  EXPECT_EQ(split.recomputed_tokens, 750);
  EXPECT_EQ(split.fetched_tokens, 250);
  EXPECT_DOUBLE_EQ(split.time_s, 0.75);
}

TEST(Crossover, ATokenSplitIsTheBestOfAll) {
  const auto fetch = [](std::int64_t n) { return 2e-3 + 1.7e-3 * static_cast<double>(n); };
  const auto rebuild = [](std::int64_t n) {
    const auto x = static_cast<double>(n);
    return 5e-3 + 1e-3 * x + 3e-6 * x * x;
  };
  const Split split = best_token_split(fetch, rebuild, 400);
  double best = 1e9;
  for (std::int64_t n = 0; n <= 400; ++n) {
    best = std::min(best, std::max(n > 0 ? rebuild(n) : 0.0, n < 400 ? fetch(400 - n) : 0.0));
  }
  EXPECT_DOUBLE_EQ(split.time_s, best);
}

// HCache's Llama-2-7B mixes 31 layers of hidden states with 1 of K and V at a storage bandwidth a
// little above balance: X is half of K and V, and its projection takes 7 % longer than its
// transfer.
TEST(Crossover, ALayerSplitFillsBothResources) {
  const ArmCost rebuilt{.link = Seconds(1.0), .compute = Seconds(1.07)};
  const ArmCost fetched{.link = Seconds(2.0)};
  const LayerSplit split = best_layer_split(rebuilt, fetched, 32);
  EXPECT_EQ(split.rebuilt_layers, 31);
  EXPECT_EQ(
      best_layer_split({.link = Seconds(3.0), .compute = Seconds(1.0)}, fetched, 32).rebuilt_layers,
      0);
}

// KVPR by hand: X half of K and V; projecting a token takes as long as moving its K and V.
TEST(Crossover, PartialRecomputeHidesBehindTheRest) {
  const auto x = [](std::int64_t n) { return 1e-3 * static_cast<double>(n); };
  const auto kv = [](std::int64_t n) { return 2e-3 * static_cast<double>(n); };
  const auto project = [](std::int64_t n) { return 2e-3 * static_cast<double>(n); };
  const Split split = best_partial_recompute(x, project, kv, 1000);
  EXPECT_EQ(split.recomputed_tokens, 500);
  EXPECT_DOUBLE_EQ(split.time_s, 1.5);  // against 2.0 for K and V alone
}

HardwareSpec h100() {
  return read_hardware(std::string(KVFATHOM_SOURCE_DIR) + "/data/hardware/h100-sxm.json");
}

TEST(Prefix, WhatATierHoldsIsTheSchemesCache) {
  const ModelSpec model = catalog("llama-2-7b-hf");
  const DatasheetLaws laws(h100());
  StoredPrefix kv(model, {}, {}, laws);
  EXPECT_EQ(kv.bytes(1000).value(), 1000.0 * 524288.0);
  EXPECT_EQ(kv.rebuild(1000).value, 0.0);
  StoredPrefix x(model, {.scheme = cache::parse_scheme("residual").request}, {}, laws);
  EXPECT_EQ(x.bytes(1000).value(), 1000.0 * 262144.0);  // half, for MHA
  // 4 d kvd FLOPs a token and layer at most at the peak of 989 TFLOP/s, and not below a tenth of
  // it.
  const double least = 1000.0 * 32.0 * 4.0 * 4096.0 * 4096.0 / 989e12;
  EXPECT_GT(x.rebuild(1000).value, least);
  EXPECT_LT(x.rebuild(1000).value, 10.0 * least);
}

// Each step of a recompute that shares the device carries the others' tokens: their K and V are
// read once a step, the weights are the chunk's own, and 16 of a step's 1024 tokens are theirs.
TEST(Prefix, StepsAreSharedWithWhatRunsBeside) {
  const ModelSpec model = catalog("llama-3.1-8b");
  const DatasheetLaws laws(h100());
  Prefix prefix(model, {}, laws, 1024);
  const Running running{.n_sequences = 16, .n_cached_tokens = 32768};
  const double alone = prefix.recompute(1008).value;
  const double beside = prefix.recompute_beside(1008, running).value;
  const double decode = prefix.step_of(running).value;
  // 16 x 32,768 tokens of 128 KiB: 68.7 GB, 20.5 ms at 3.35 TB/s.
  EXPECT_GT(beside, alone + 0.0205);
  EXPECT_LT(beside, alone + decode);
  EXPECT_DOUBLE_EQ(prefix.recompute_beside(1008, {}).value, alone);
  EXPECT_NEAR(prefix.recompute_beside(2016, running).value, 2.0 * beside, 0.03 * beside);
}

// DeepSeek-V3.2's keys of 128 in 8 bits and a scale of 4 bytes; its latents in the 656 bytes of
// FlashMLA's sparse layout where they are in 8 bits.
TEST(Prefix, ServingEnginesStoreIndexerKeysWithTheirScales) {
  const ModelSpec model = catalog("deepseek-v3.2");
  const DatasheetLaws laws(h100());
  StoredPrefix paged(model, {.is_paged = true}, {}, laws);
  EXPECT_EQ(paged.bytes(100).value(), 100.0 * 61.0 * (132.0 + 1152.0));
  StoredPrefix narrow(
      model,
      {.cache_type_k = DType::f8_e4m3, .cache_type_v = DType::f8_e4m3, .is_paged = true},
      {},
      laws);
  EXPECT_EQ(narrow.bytes(100).value(), 100.0 * 61.0 * (132.0 + 656.0));
}

// By the layers' own products and causal attention: 5.54 and 17.6 GB/s.
TEST(Prefix, MooncakesBoundWithCausalAttention) {
  std::vector<Op> ops;
  StepOps(catalog("meta-llama-3-70b"), {})
      .emit({.phase = Phase::prefill, .n_new_tokens = 8192}, ops);
  double flops = 0.0;
  for (const Op& op : ops) {
    const bool counted = op.op_class.kind == OpKind::prefill_attention ||
                         (op.op_class.kind == OpKind::gemm && op.part != "output head");
    flops += counted ? static_cast<double>(op.n_times) * op.cost.flops.value() : 0.0;
  }
  const double kv_bytes = 8192.0 * 327680.0;
  EXPECT_NEAR(kv_bytes / (flops / (8.0 * 312e12)) / 1e9, 5.54, 0.01);
  EXPECT_NEAR(kv_bytes / (flops / (8.0 * 989e12)) / 1e9, 17.6, 0.05);
}

// KV-Direct (arXiv 2603.19664): rebuilding K and V of 500 tokens of a layer took 0.17 to 0.3 of the
// time of reading them, on an M3 Max. Its X is no smaller than K and V in five of its six models,
// so of bandwidth alone rebuilding is never quicker there; and even the quickest rebuilding (the
// peak, 16.4 TFLOP/s) over 0.3 leaves its reads at less than a twentieth of 409.6 GB/s: the ratio
// is that of a framework's read path.
TEST(Crossover, KvDirectsRatiosAreNoBandwidths) {
  const HardwareSpec m3_max =
      read_hardware(std::string(KVFATHOM_SOURCE_DIR) + "/data/hardware/m3-max-40-core.json");
  const double peak = m3_max.peak_rates.at("fp32").value();
  constexpr double kTokens = 500.0;
  int n_larger = 0;
  for (const char* id :
       {"smollm2-135m", "qwen2.5-0.5b", "qwen3-0.6b", "qwen2.5-1.5b", "gemma-3-4b-it"}) {
    const ModelSpec model = catalog(id);
    const auto& a = std::get<Attention>(model.layers.front().mixer);
    const auto kvd = static_cast<double>(a.n_kv_heads * a.head_dim);
    const auto d = static_cast<double>(model.hidden_size);
    const double x_bytes = kTokens * d * 2.0;
    const double kv_bytes = kTokens * 2.0 * kvd * 2.0;
    const double read_s = (Bytes(kv_bytes) / m3_max.bandwidth).value();
    const double rebuild_s =
        std::max((Bytes(x_bytes) / m3_max.bandwidth).value(), kTokens * 4.0 * d * kvd / peak);
    EXPECT_GT(rebuild_s, read_s) << id;  // compute alone: 4 d kvd FLOPs against 4 kvd bytes
    n_larger += x_bytes > kv_bytes ? 1 : 0;
  }
  EXPECT_EQ(n_larger, 4);  // all but Qwen3-0.6B
  // Qwen2.5-1.5B, whose published ratio is the 0.17: 786 MFLOP against 512 KB.
  const double claimed_read_s = kTokens * 4.0 * 1536.0 * 256.0 / peak / 0.17;
  EXPECT_LT(kTokens * 1024.0 / claimed_read_s, 0.005 * m3_max.bandwidth.value());
}

// The whole model priced: below the ideal by what products reach of their peak, and what else a
// prompt takes.
TEST(Prefix, TheModelsCrossoverBandwidthIsMooncakesByItsEfficiency) {
  const ModelSpec model = catalog("meta-llama-3-70b");
  HardwareSpec a800 =
      read_hardware(std::string(KVFATHOM_SOURCE_DIR) + "/data/hardware/a800-sxm4-80gb.json");
  LatencySettings settings;
  settings.tensor_parallel = 8;
  const DatasheetLaws laws(a800);
  Prefix prefix(model, settings, laws, 8192);
  StoredPrefix kv(model, {}, settings, laws);
  const double bandwidth = kv.bytes(8192).value() / prefix.recompute(8192).value / 1e9;
  EXPECT_LT(bandwidth, 5.54);
  EXPECT_GT(bandwidth, 5.54 * 0.4);
}

}  // namespace
}  // namespace kvfathom
