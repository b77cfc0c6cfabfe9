// Which fitted class prices an operation, and what stands in where none was fitted.
#include "model/latency/calibrated_laws.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "model/latency/datasheet_laws.h"

namespace kvfathom {
namespace {

constexpr Seconds kFixed(5e-6);

FittedClass fitted(const std::string& op, const std::string& format, double bandwidth) {
  FittedClass one;
  one.id.op = op;
  one.id.format = format;
  one.law.fixed = kFixed;
  one.law.bandwidth = BytesPerSecond(bandwidth);
  one.residuals = {.q05 = -0.2, .q50 = 0.0, .q95 = 0.1};
  return one;
}

Calibration calibration(const std::string& version, std::vector<FittedClass> classes) {
  Calibration one;
  one.device_name = "D";
  one.engine = "vllm";
  one.engine_version = version;
  one.classes = std::move(classes);
  return one;
}

std::unique_ptr<LawSource> datasheet() {
  HardwareSpec device;
  device.bandwidth = BytesPerSecond(1e12);
  return std::make_unique<DatasheetLaws>(device);
}

double bandwidth_of(const LawSource& laws, const OpClass& op_class) {
  return laws.law(op_class, false).law.bandwidth->value();
}

constexpr OpClass kFp8{.kind = OpKind::gemm, .format = DType::f8_e4m3};

TEST(CalibratedLaws, TellScalesOfBlocksFromThoseOfChannels) {
  const CalibratedLaws laws(
      {calibration("1", {fitted("gemm", "fp8", 3e11), fitted("gemm", "fp8_block", 2e11)})},
      Provenance::published,
      datasheet());
  OpClass blocks = kFp8;
  blocks.block_scales = true;
  EXPECT_DOUBLE_EQ(bandwidth_of(laws, kFp8), 3e11);
  EXPECT_DOUBLE_EQ(bandwidth_of(laws, blocks), 2e11);
  const PricedClass priced = laws.law(blocks, false);
  EXPECT_EQ(priced.provenance, Provenance::published);
  EXPECT_DOUBLE_EQ(priced.log_error, 0.2);  // the farther end
  EXPECT_EQ(priced.origin, "published kernels of vllm 1 on D");
}

TEST(CalibratedLaws, FewRowsHaveALawOfTheirOwnWhereOneWasFitted) {
  FittedClass few = fitted("gemm", "fp8", 4e11);
  few.id.variant = "few";
  const FittedClass all = fitted("gemm", "fp8", 3e11);
  OpClass few_rows = kFp8;
  few_rows.few_rows = true;
  const CalibratedLaws both({calibration("1", {all, few})}, Provenance::published, datasheet());
  EXPECT_DOUBLE_EQ(bandwidth_of(both, few_rows), 4e11);
  EXPECT_DOUBLE_EQ(bandwidth_of(both, kFp8), 3e11);
  const CalibratedLaws one({calibration("1", {all})}, Provenance::published, datasheet());
  EXPECT_DOUBLE_EQ(bandwidth_of(one, few_rows), 3e11);
  EXPECT_EQ(one.law(few_rows, false).origin, "published kernels of vllm 1 on D");  // no other shape
  few_rows.block_scales = true;
  const FittedClass blocks = fitted("gemm", "fp8_block", 2e11);
  const CalibratedLaws of_blocks(
      {calibration("1", {all, blocks})}, Provenance::published, datasheet());
  EXPECT_DOUBLE_EQ(bandwidth_of(of_blocks, few_rows), 2e11);
}

TEST(CalibratedLaws, PreferAnotherCalibrationsOwnClassToALikeOne) {
  FittedClass plain = fitted("prefill_attention", "bf16", 3e11);
  plain.id.head_dim = 192;
  FittedClass latent = fitted("prefill_attention", "bf16", 1e11);
  latent.id.head_dim = 192;
  latent.id.variant = "mla";
  const CalibratedLaws laws(
      {calibration("2", {plain}), calibration("1", {latent})}, Provenance::published, datasheet());
  OpClass op_class{.kind = OpKind::prefill_attention, .format = DType::bf16, .head_dim = 192};
  EXPECT_DOUBLE_EQ(bandwidth_of(laws, op_class), 3e11);
  op_class.latent = true;
  EXPECT_DOUBLE_EQ(bandwidth_of(laws, op_class), 1e11);
  EXPECT_EQ(laws.law(op_class, false).origin, "published kernels of vllm 1 on D");
  op_class.head_dim = 576;  // nowhere: the nearest of its kind
  EXPECT_EQ(laws.law(op_class, false).origin, "published kernels of vllm 1 on D, of similar shape");
}

// Points that are all large do not tell what a call costs: no kernel is free to launch.
TEST(CalibratedLaws, ChargeALaunchWhereNoFixedCostWasFitted) {
  FittedClass free_of_charge = fitted("gemm", "fp8", 3e11);
  free_of_charge.law.fixed = Seconds();
  Calibration one = calibration("1", {free_of_charge});
  const double of_datasheet = datasheet()->law(kFp8, false).launch.value();
  EXPECT_GT(of_datasheet, 0.0);
  EXPECT_DOUBLE_EQ(
      CalibratedLaws({one}, Provenance::published, datasheet()).law(kFp8, false).launch.value(),
      of_datasheet);
  one.ceilings.launch = Seconds(7e-6);
  EXPECT_DOUBLE_EQ(
      CalibratedLaws({one}, Provenance::published, datasheet()).law(kFp8, false).launch.value(),
      7e-6);
  one.classes.front().law.fixed = kFixed;
  EXPECT_DOUBLE_EQ(
      CalibratedLaws({one}, Provenance::published, datasheet()).law(kFp8, false).launch.value(),
      0.0);
}

// Else a cache in any format that nobody measured would be quicker to read where it is short.
TEST(CalibratedLaws, AFormatThatWasNotMeasuredIsNoCheaperToCall) {
  FittedClass reads = fitted("decode_attention", "bf16", 3e11);
  reads.id.head_dim = 128;
  reads.id.group = 4;
  const CalibratedLaws laws({calibration("1", {reads})}, Provenance::published, datasheet());
  const auto call_s = [&](OpKind kind, DType format) {
    const PricedClass priced =
        laws.law({.kind = kind, .format = format, .head_dim = 128, .heads_per_kv = 4}, false);
    return (priced.law.fixed + priced.launch).value();
  };
  const double measured = call_s(OpKind::decode_attention, DType::bf16);
  EXPECT_DOUBLE_EQ(measured, kFixed.value());
  EXPECT_DOUBLE_EQ(call_s(OpKind::decode_attention, DType::q4_0), measured);
  EXPECT_DOUBLE_EQ(call_s(OpKind::residual_recompute, DType::bf16), measured);
  EXPECT_LT(call_s(OpKind::gemm, DType::q4_0), measured);  // the data sheet's own
}

TEST(CalibratedLaws, LeaveWhatWasNotMeasuredToTheLawsBehind) {
  const CalibratedLaws laws({calibration("1", {})}, Provenance::measured, datasheet());
  EXPECT_EQ(laws.law(kFp8, false).provenance, Provenance::datasheet);
  EXPECT_EQ(laws.law(kFp8, true).provenance, Provenance::assumed);
}

}  // namespace
}  // namespace kvfathom
