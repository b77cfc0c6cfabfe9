#include "calibrate/fit/table.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "model/error.h"
#include "model/io/calibration_json.h"

namespace kvfathom {
namespace {

std::string written(const std::string& name, const std::string& text) {
  const std::string path = ::testing::TempDir() + name;
  std::ofstream(path) << text;
  return path;
}

HardwareSpec device() {
  HardwareSpec spec;
  spec.n_compute_units = 132;
  spec.bandwidth = BytesPerSecond(4.8e12);
  spec.peak_rates["bf16"] = FlopsPerSecond(989e12);
  return spec;
}

TEST(Tables, AGemmRowIsItsShapesWorkInMilliseconds) {
  const Table table(written("gemm.csv",
                            "kernel_source,gemm_dtype,m,n,k,latency\r\n"
                            "linear,bfloat16,16,4096,1024,0.25\r\n"
                            "linear,unheard_of,16,4096,1024,0.25\r\n"));
  const auto classes = classes_of("gemm", table, device());
  ASSERT_EQ(classes.size(), 1U);
  EXPECT_EQ(text_of(classes[0].id), "gemm/bf16");
  ASSERT_EQ(classes[0].points.size(), 1U);
  EXPECT_EQ(classes[0].points[0].work.flops, Flops(2.0 * 16 * 4096 * 1024));
  EXPECT_EQ(classes[0].points[0].work.bytes, Bytes(2.0 * (4096 * 1024 + 16 * 1024 + 16 * 4096)));
  EXPECT_DOUBLE_EQ(classes[0].points[0].time.value(), 0.25e-3);
  EXPECT_EQ(classes[0].settings.max_flops, FlopsPerSecond(989e12));
}

/// 64 sequences of 1024 tokens, 8 KV heads of 128 in bf16: 64 x 8 x 1024 x 512 bytes of cache, 4
/// rounds of 132 blocks; and the same with a window of 128 tokens.
TEST(Tables, ADecodeRowCountsTheStepsTokensAndTheNewOne) {
  const Table table(
      written("decode.csv",
              "kernel_source,batch_size,isl,num_heads,num_key_value_heads,head_dim,attn_dtype,"
              "kv_cache_dtype,step,window_size,latency\n"
              "fa3,64,1,32,8,128,bfloat16,bfloat16,1023,0,0.1\n"
              "fa3,64,1,32,8,128,bfloat16,bfloat16,1023,128,0.05\n"
              "fa3,64,1,32,8,128,bfloat16,bfloat16,15,0,0.02\n"));
  const auto classes = classes_of("generation_attention", table, device());
  ASSERT_EQ(classes.size(), 2U);
  const double queries_and_outputs = 64.0 * 32 * 128 * (2 + 4);
  const Work& all = classes[0].points[0].work;
  EXPECT_EQ(text_of(classes[0].id), "decode_attention/bf16/d128");
  EXPECT_EQ(classes[0].points.size(), 1U);
  EXPECT_EQ(all.bytes, Bytes(64.0 * 8 * 1024 * 512 + queries_and_outputs));
  EXPECT_EQ(all.waves, 4.0);
  EXPECT_EQ(text_of(classes[1].id), "decode_attention/bf16/d128/window");
  EXPECT_EQ(classes[1].points[0].work.bytes, Bytes(64.0 * 8 * 128 * 512 + queries_and_outputs));
}

TEST(Tables, MessagesAreCountedInElementsOfTwoBytes) {
  const Table table(written("nccl.csv",
                            "op_name,kernel_source,nccl_dtype,num_gpus,message_size,latency\n"
                            "alltoall,NCCL,half,8,1000,0.01\n"
                            "alltoall,NCCL,int8,8,1000,0.01\n"));
  const auto classes = classes_of("nccl", table, device());
  ASSERT_EQ(classes.size(), 1U);
  EXPECT_EQ(text_of(classes[0].id), "all_to_all/bf16/g8");
  EXPECT_EQ(classes[0].points.size(), 1U);
  EXPECT_EQ(classes[0].points[0].work.bytes, Bytes(2000));
}

TEST(Tables, WhatIsNoTableIsRefusedAndWhatIsNotFittedIsLeftOut) {
  const std::string path = written("broken.csv", "a,b\n1,2\n3\n");
  EXPECT_THROW(Table{path}, InputError);
  const Table table(written("other.csv", "a\n1\n"));
  EXPECT_TRUE(classes_of("mla_context_module", table, device()).empty());
  EXPECT_THROW((void)classes_of("gemm", table, device()), InputError);
}

/// Four experts, four choices, alpha 2: quantiles of x^-2 on [0.01, 2] at 1/8, 3/8, 5/8 and 7/8 are
/// 0.0114, 0.0160, 0.0264 and 0.0773; scaled to 4 in all 0.35, 0.49, 0.81 and 2.36: two round to
/// one or more, to three choices in all, and the fourth goes to an expert that has none.
TEST(Tables, PowerLawLoadsLeaveExpertsWithoutTokens) {
  EXPECT_EQ(power_law_active_experts(4, 4, 1, 2.0), 3.0);
  EXPECT_EQ(power_law_active_experts(1, 128, 8, 1.2), 8.0);
  // Four tokens of 128 experts: 18 loads of [0.5, 1.5) and three of [1.5, 1.85) round to 24 of the
  // 32 choices; the other eight go to experts that have none.
  EXPECT_EQ(power_law_active_experts(4, 128, 8, 1.2), 29.0);
  // Loads of 1 to 51.2 have a mean of 10.2 at this exponent and must come to 4: those below 1.28,
  // (1 - 1.28^-0.2) / (1 - 51.2^-0.2) = 8.8 % of 128, round to none.
  EXPECT_EQ(power_law_active_experts(64, 128, 8, 1.2), 117.0);
}

TEST(PublishedCalibrations, EveryFileReadsAndNamesItsSource) {
  int n_files = 0;
  const std::string folder = KVFATHOM_SOURCE_DIR "/data/calibrations/published";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string path = entry.path().string();
    const Calibration calibration = read_calibration(path);
    EXPECT_EQ(entry.path().stem().string(),
              calibration.device_id + "-" + calibration.engine + "-" + calibration.engine_version);
    EXPECT_NE(calibration.source.find("commit 095f58a5"), std::string::npos) << path;
    EXPECT_FALSE(calibration.classes.empty()) << path;
    for (const FittedClass& fitted : calibration.classes) {
      EXPECT_EQ(fitted.provenance, Provenance::published);
      EXPECT_TRUE(fitted.law.bandwidth || fitted.law.flops) << path << text_of(fitted.id);
      EXPECT_LT(fitted.residuals.q05, fitted.residuals.q95);
    }
    ++n_files;
  }
  EXPECT_GE(n_files, 10);
}

/// Fitted elsewhere to the same table by other code: t0 10.7 us, 4.19 TB/s, 2.2 us a wave, mean
/// error 6.9 %; the product of matrices at 3.7 us, 3.95 TB/s, 792 TFLOP/s.
TEST(PublishedCalibrations, H200AgreesWithAnIndependentFit) {
  const Calibration h200 = read_calibration(
      KVFATHOM_SOURCE_DIR "/data/calibrations/published/h200-sxm-vllm-0.24.0.json");
  const FittedClass* const decode =
      find_class(h200, *kernel_class_named("decode_attention/bf16/d128"));
  ASSERT_NE(decode, nullptr);
  EXPECT_NEAR(decode->law.fixed.value(), 10.7e-6, 0.5e-6);
  EXPECT_NEAR(decode->law.bandwidth->value(), 4.19e12, 0.1e12);
  EXPECT_NEAR(decode->law.wave->value(), 2.2e-6, 0.2e-6);
  EXPECT_LT(decode->loo.mean, 0.08);
  const FittedClass* const gemm = find_class(h200, *kernel_class_named("gemm/bf16"));
  ASSERT_NE(gemm, nullptr);
  EXPECT_NEAR(gemm->law.flops->value(), 792e12, 40e12);
  EXPECT_NEAR(gemm->law.bandwidth->value(), 3.95e12, 0.3e12);
}

}  // namespace
}  // namespace kvfathom
