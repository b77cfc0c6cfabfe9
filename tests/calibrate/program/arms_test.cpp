#include "calibrate/program/arms.h"

#include <map>

#include <gtest/gtest.h>

namespace kvfathom::calibrate {
namespace {

/// A link that takes 20 ms to answer and then is quick: one token is computed much sooner than it
/// comes (10 MB of weights), 1024 come much sooner than they are computed (13 GFLOP). One thread,
/// as others may be waited for on a busy machine.
const ArmsRequest kRequest{
    .shape = {.hidden_size = 512,
              .n_layers = 2,
              .n_heads = 8,
              .n_kv_heads = 8,
              .head_dim = 64,
              .intermediate_size = 1024,
              .vocab_size = 512},
    .link = {.bandwidth_bytes_per_s = 10e9, .call_s = 0.02, .piece_bytes = std::int64_t{1} << 30},
    .chunk_tokens = 700,
    .n_threads = 1,
    .most_s = 0.2,
    .lengths_tokens = {1, 1024}};

TEST(PrefixArms, ShortPrefixesAreComputedSoonerAndLongOnesFetched) {
#ifndef NDEBUG
  GTEST_SKIP() << "a debug build is no measure of which arm is the quicker";
#endif
  std::map<std::int64_t, std::map<std::string, ArmTime>> times;
  measure_arms(kRequest, [&](const ArmTime& time) { times[time.n_tokens][time.arm] = time; });
  ASSERT_EQ(times.size(), 2U);
  for (auto& [n_tokens, of] : times) {
    ASSERT_EQ(of.size(), 4U) << n_tokens;
    for (const auto& [arm, time] : of) {
      EXPECT_GT(time.low_s, 0.0) << arm;
      EXPECT_LE(time.low_s, time.time_s) << arm;
      EXPECT_LE(time.time_s, time.high_s) << arm;
    }
    // A link that is held is never quicker than it is said to be.
    EXPECT_GE(of[kFetchArm].low_s, 0.02);
    EXPECT_GE(of[kFetchXArm].low_s, 0.02);
    // Two of the products that a prompt runs.
    EXPECT_LT(of[kProjectArm].time_s, of[kRecomputeArm].time_s) << n_tokens;
  }
  EXPECT_LT(times[1][kRecomputeArm].time_s, times[1][kFetchArm].time_s);
  EXPECT_LT(times[1024][kFetchArm].time_s, times[1024][kRecomputeArm].time_s);
}

}  // namespace
}  // namespace kvfathom::calibrate
