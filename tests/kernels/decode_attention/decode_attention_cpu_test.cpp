// CPU decode attention against the reference, at every vector width that this machine has.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include "kernels/common/error.h"
#include "tests/kernels/decode_attention/decode_attention_case.h"

namespace kvfathom::kernels {
namespace {

/// Every product and sum in float, and nothing rounded besides.
constexpr Roundings kCpuRoundings{};

std::vector<float> run_cpu(const DecodeAttentionCase& c,
                           DecodeAttentionParams params,
                           int threads) {
  std::vector<float> out(c.out_size(), std::numeric_limits<float>::quiet_NaN());
  params.out = out.data();
  decode_attention_cpu(params, threads);
  return out;
}

Comparison compare_cpu(const DecodeAttentionCase& c,
                       const DecodeAttentionParams& params,
                       int threads = 1) {
  const DecodeAttentionCase::Expected expected = c.expected(kCpuRoundings);
  return compare<float>(run_cpu(c, params, threads), expected.out, expected.bound);
}
Comparison compare_cpu(const DecodeAttentionCase& c, int threads = 1) {
  return compare_cpu(c, c.host_params(), threads);
}

/// Lengths about the edges of tiles, groups of rows and pages of 16.
std::vector<int> edge_lengths() {
  return {0, 1, 3, 4, 5, 15, 16, 17, 127, 128, 129, 255, 257, 300};
}

TEST(DecodeAttentionCpu, EveryFormatAndHeadCount) {
  for (const KvFormat format : kAllKvFormats) {
    for (const int heads : {1, 2, 3, 4, 5, 8, 12}) {
      SCOPED_TRACE(std::string(name(format)) + " G" + std::to_string(heads));
      const DecodeAttentionCase c({.cache = {.format = format,
                                             .n_kv_heads = 2,
                                             .k_dim = 64,
                                             .v_dim = 64,
                                             .lengths = edge_lengths(),
                                             .page_tokens = 16,
                                             .seed = 3},
                                   .heads_per_kv_head = heads});
      EXPECT_TRUE(within(compare_cpu(c, 1)));
      EXPECT_TRUE(within(compare_cpu(c, 3)));
    }
  }
}

TEST(DecodeAttentionCpu, EveryHeadSize) {
  for (const int dim : {16, 32, 48, 80, 96, 128, 192, 256}) {
    for (const KvFormat format : {KvFormat::bf16, KvFormat::q4_0, KvFormat::int8_token}) {
      if (format == KvFormat::q4_0 && dim % kQuantBlock != 0) {
        continue;
      }
      SCOPED_TRACE(std::string(name(format)) + " D" + std::to_string(dim));
      for (const int heads : {1, 6}) {
        const DecodeAttentionCase c({.cache = {.format = format,
                                               .n_kv_heads = 1,
                                               .k_dim = dim,
                                               .v_dim = dim,
                                               .lengths = {200, 31},
                                               .seed = 4},
                                     .heads_per_kv_head = heads});
        EXPECT_TRUE(within(compare_cpu(c)));
      }
    }
  }
}

TEST(DecodeAttentionCpu, EveryLayout) {
  for (const int page_tokens : {0, 1, 16, 256}) {
    for (const bool token_major : {false, true}) {
      for (const KvFormat format : {KvFormat::f16, KvFormat::q8_0, KvFormat::fp8_e4m3}) {
        SCOPED_TRACE("pages of " + std::to_string(page_tokens));
        const DecodeAttentionCase c({.cache = {.format = format,
                                               .n_kv_heads = 3,
                                               .k_dim = 96,
                                               .v_dim = 96,
                                               .lengths = {257, 0, 40, 129, 1, 16, 17, 255, 64},
                                               .lengths_per_head = true,
                                               .page_tokens = page_tokens,
                                               .token_major = token_major,
                                               .seed = 5},
                                     .heads_per_kv_head = 5});
        EXPECT_TRUE(within(compare_cpu(c, 2)));
      }
    }
  }
}

TEST(DecodeAttentionCpu, EveryVectorWidth) {
  const std::int64_t supported = hwy::SupportedTargets();
  for (std::int64_t target = 1; target > 0 && target <= HWY_SCALAR; target <<= 1) {
    if ((supported & target) == 0 && target != HWY_SCALAR) {
      continue;
    }
    hwy::SetSupportedTargetsForTest(target);
    for (const KvFormat format : kAllKvFormats) {
      SCOPED_TRACE(std::string(hwy::TargetName(target)) + " " + std::string(name(format)));
      const DecodeAttentionCase c({.cache = {.format = format,
                                             .n_kv_heads = 2,
                                             .k_dim = 96,
                                             .v_dim = 96,
                                             .lengths = {150, 7},
                                             .seed = 6},
                                   .heads_per_kv_head = 3});
      EXPECT_TRUE(within(compare_cpu(c)));
    }
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(DecodeAttentionCpu, ThreadsShareOneLongSequence) {
  const DecodeAttentionCase c({.cache = {.format = KvFormat::bf16,
                                         .n_kv_heads = 1,
                                         .k_dim = 64,
                                         .v_dim = 64,
                                         .lengths = {3001},
                                         .seed = 7},
                               .heads_per_kv_head = 4});
  for (const int threads : {1, 2, 7, 16, 64}) {
    EXPECT_TRUE(within(compare_cpu(c, threads))) << threads << " threads";
  }
}

TEST(DecodeAttentionCpu, WindowsSinksAndSinkLogits) {
  for (const int window : {1, 16, 100, 128, 1000}) {
    for (const int sinks : {0, 1, 4, 130}) {
      SCOPED_TRACE("window " + std::to_string(window) + " sinks " + std::to_string(sinks));
      const DecodeAttentionCase c({.cache = {.format = KvFormat::bf16,
                                             .n_kv_heads = 2,
                                             .k_dim = 64,
                                             .v_dim = 64,
                                             .lengths = {0, 1, 99, 100, 101, 104, 300},
                                             .page_tokens = 32,
                                             .seed = 8},
                                   .heads_per_kv_head = 3,
                                   .window_tokens = window,
                                   .sink_tokens = sinks,
                                   .sink_logits = true});
      EXPECT_TRUE(within(compare_cpu(c, 3)));
    }
  }
}

TEST(DecodeAttentionCpu, DominantTokensAtEveryEdge) {
  constexpr int kLength = 400;
  for (const int token : {0, 15, 16, 127, 128, 199, 200, 255, 256, kLength - 1}) {
    DecodeAttentionCase c({.cache = {.format = KvFormat::q8_0,
                                     .n_kv_heads = 1,
                                     .k_dim = 128,
                                     .v_dim = 128,
                                     .lengths = {kLength},
                                     .page_tokens = 16,
                                     .seed = 9},
                           .heads_per_kv_head = 2});
    c.plant_dominant(0, 1, token);
    EXPECT_TRUE(within(compare_cpu(c, 2))) << "token " << token;
  }
}

TEST(DecodeAttentionCpu, DominantTokensWhereTilesAndSharesMeet) {
  constexpr int kLength = 2100;  // more than two tiles of 1024, eight of 256; threads meet at 1050
  for (const bool token_major : {false, true}) {
    for (const int token : {0, 255, 256, 1023, 1024, 1049, 1050, 1305, 2047, 2048, kLength - 1}) {
      DecodeAttentionCase c({.cache = {.format = KvFormat::bf16,
                                       .n_kv_heads = 3,
                                       .k_dim = 64,
                                       .v_dim = 64,
                                       .lengths = {kLength},
                                       .token_major = token_major,
                                       .seed = 14},
                             .heads_per_kv_head = 1});
      c.plant_dominant(0, 1, token);
      EXPECT_TRUE(within(compare_cpu(c, 1))) << "token " << token;
      EXPECT_TRUE(within(compare_cpu(c, 2))) << "token " << token << ", 2 threads";
    }
  }
}

TEST(DecodeAttentionCpu, ExtremeScores) {
  for (const float deviation : {1e-3F, 30.0F, 300.0F}) {
    const DecodeAttentionCase c({.cache = {.format = KvFormat::bf16,
                                           .n_kv_heads = 1,
                                           .k_dim = 64,
                                           .v_dim = 64,
                                           .lengths = {500},
                                           .deviation = deviation,
                                           .seed = 10},
                                 .heads_per_kv_head = 2,
                                 .q_deviation = deviation});
    EXPECT_TRUE(within(compare_cpu(c, 2))) << "deviation " << deviation;
  }
}

TEST(DecodeAttentionCpu, EmptySequencesGiveZeros) {
  const DecodeAttentionCase c({.cache = {.n_kv_heads = 2, .lengths = {0, 0}, .seed = 11},
                               .heads_per_kv_head = 2,
                               .sink_logits = true});
  for (const float x : run_cpu(c, c.host_params(), 2)) {
    EXPECT_EQ(x, 0.0F);
  }
}

TEST(DecodeAttentionCpu, MutatedArgumentsAreNoticed) {
  DecodeAttentionCase c({.cache = {.format = KvFormat::bf16,
                                   .n_kv_heads = 2,
                                   .k_dim = 128,
                                   .v_dim = 128,
                                   .lengths = {600, 500},
                                   .seed = 12},
                         .heads_per_kv_head = 2,
                         .window_tokens = 300,
                         .sink_tokens = 4,
                         .sink_logits = true});
  c.plant_dominant(0, 0, 599);
  c.plant_dominant(1, 3, 200);  // the oldest of the window
  c.plant_dominant(1, 1, 3);    // the newest sink
  const DecodeAttentionParams right = c.host_params();
  EXPECT_TRUE(within(compare_cpu(c, right, 2)));
  const auto is_noticed = [&](const char* what, auto mutate) {
    DecodeAttentionParams wrong = right;
    mutate(wrong);
    EXPECT_FALSE(compare_cpu(c, wrong, 2).holds()) << what;
  };
  const std::vector<std::int32_t> shorter = {599, 500};
  is_noticed("one token less", [&](auto& p) { p.cache.lengths = shorter.data(); });
  is_noticed("1 % more scale", [](auto& p) { p.softmax_scale *= 1.01F; });
  is_noticed("a shorter window", [](auto& p) { p.window_tokens = 299; });
  is_noticed("a sink less", [](auto& p) { p.sink_tokens = 3; });
  is_noticed("no sink logits", [](auto& p) { p.sink_logits = nullptr; });
  is_noticed("heads swapped", [](auto& p) {
    p.cache.k.data += p.cache.k.head_stride_bytes;
    p.cache.k.head_stride_bytes = -p.cache.k.head_stride_bytes;
  });
  is_noticed("V for K", [](auto& p) { std::swap(p.cache.k, p.cache.v); });
}

TEST(DecodeAttentionCpu, RefusesWhatItCannotDo) {
  const DecodeAttentionCase c({.cache = {.n_kv_heads = 2, .lengths = {8}, .seed = 13}});
  const auto message = [&](auto change) -> std::string {
    DecodeAttentionParams params = c.host_params();
    change(params);
    try {
      decode_attention_cpu(params);
    } catch (const UnsupportedShape& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message([](auto& p) { p.n_heads = 3; }),
            "n_heads = 3 is not a multiple of n_kv_heads = 2");
  EXPECT_EQ(message([](auto& p) { p.head_dim = 40; }), "head_dim = 40 is not a multiple of 16");
}

}  // namespace
}  // namespace kvfathom::kernels
