#include "model/latency/law.h"

#include <cmath>

#include <gtest/gtest.h>

#include "model/latency/calibration.h"

namespace kvfathom {
namespace {

Law whole_law(double p) {
  return Law{.fixed = Seconds(10e-6),
             .wave = Seconds(2e-6),
             .bandwidth = BytesPerSecond(1e12),
             .flops = FlopsPerSecond(1e14),
             .dequant_ops_per_s = 1e12,
             .p = p};
}
/// 30 us of memory, 40 us of arithmetic, 3 waves.
Work some_work() {
  return Work{.bytes = Bytes(30e6), .flops = Flops(4e9), .waves = 3.0};
}

TEST(Law, TermsAddUpOrOverlapAsPSays) {
  EXPECT_NEAR(time(whole_law(1.0), some_work()).value(), 10e-6 + 6e-6 + 70e-6, 1e-12);
  EXPECT_NEAR(time(whole_law(2.0), some_work()).value(), 10e-6 + 6e-6 + 50e-6, 1e-12);
  EXPECT_NEAR(time(whole_law(400.0), some_work()).value(), 10e-6 + 6e-6 + 40e-6, 1e-7);
}

TEST(Law, AbsentTermsCostNothing) {
  const Law fixed_only{.fixed = Seconds(1e-5)};
  EXPECT_EQ(time(fixed_only, some_work()), Seconds(1e-5));
  EXPECT_EQ(time(whole_law(3.0), Work{}), Seconds(1e-5));
}

TEST(Law, NeverFallsAsWorkGrows) {
  for (const double p : {1.0, 2.7, 8.0}) {
    Seconds last;
    for (double size = 1.0; size < 1e14; size *= 3.0) {
      Work work{.bytes = Bytes(1e6), .flops = Flops(size), .dequant_ops = 1e5, .waves = 1.0};
      const Seconds by_flops = time(whole_law(p), work);
      EXPECT_GE(by_flops, last) << p << " " << size;
      last = by_flops;
      work.bytes = Bytes(2e6);
      EXPECT_GE(time(whole_law(p), work), by_flops) << p << " " << size;
    }
  }
}

TEST(Law, SaysWhatBinds) {
  EXPECT_EQ(bound_by(whole_law(2.0), some_work()), "arithmetic");
  EXPECT_EQ(bound_by(whole_law(2.0), Work{.bytes = Bytes(1e9)}), "memory");
  EXPECT_EQ(bound_by(whole_law(2.0), Work{.bytes = Bytes(1e3)}), "fixed");
}

TEST(Law, WavesRoundUp) {
  EXPECT_EQ(waves(1, 132), 1.0);
  EXPECT_EQ(waves(132, 132), 1.0);
  EXPECT_EQ(waves(133, 132), 2.0);
}

TEST(KernelClass, TextAndBack) {
  for (const char* text : {"gemm/bf16",
                           "decode_attention/bf16/d128/g8",
                           "decode_attention/fp8/d64/window",
                           "all_reduce/bf16/g8/eager"}) {
    const auto id = kernel_class_named(text);
    ASSERT_TRUE(id) << text;
    EXPECT_EQ(text_of(*id), text);
  }
  EXPECT_EQ(kernel_class_named("decode_attention/bf16/d128/g8")->group, 8);
  for (const char* text : {"", "gemm", "/bf16", "gemm/bf16/", "gemm/bf16/d128/g8/a/b"}) {
    EXPECT_FALSE(kernel_class_named(text)) << text;
  }
}

FittedClass some_class(const char* id) {
  FittedClass fitted;
  fitted.id = *kernel_class_named(id);
  fitted.law = Law{.fixed = Seconds(0), .bandwidth = BytesPerSecond(1e12)};
  fitted.residuals = {std::log(0.8), 0.0, std::log(1.25)};
  fitted.range.bytes = {1e6, 1e9};
  return fitted;
}

TEST(Calibration, TheNearestClassSharesOperationFormatAndVariant) {
  Calibration calibration;
  for (const char* id : {"decode_attention/bf16/d64/g1",
                         "decode_attention/bf16/d128/g1",
                         "decode_attention/bf16/d128/g8",
                         "decode_attention/fp8/d256/g4"}) {
    calibration.classes.push_back(some_class(id));
  }
  const auto nearest = [&](const char* id) {
    const FittedClass* const found = nearest_class(calibration, *kernel_class_named(id));
    return found == nullptr ? "none" : text_of(found->id);
  };
  EXPECT_EQ(nearest("decode_attention/bf16/d128/g5"), "decode_attention/bf16/d128/g8");
  EXPECT_EQ(nearest("decode_attention/bf16/d80/g8"), "decode_attention/bf16/d64/g1");
  EXPECT_EQ(nearest("decode_attention/bf16/d128/g8/window"), "none");
  EXPECT_EQ(nearest("gemm/bf16"), "none");
  EXPECT_EQ(find_class(calibration, *kernel_class_named("decode_attention/bf16/d128/g5")), nullptr);
}

}  // namespace
}  // namespace kvfathom
