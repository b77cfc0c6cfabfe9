#include "model/io/calibration_json.h"

#include <gtest/gtest.h>

#include "model/error.h"

namespace kvfathom {
namespace {

Calibration whole() {
  FittedClass fitted;
  fitted.id = *kernel_class_named("decode_attention/fp8/d128/g8/window");
  fitted.provenance = Provenance::measured_similar;
  fitted.law = {.fixed = Seconds(8.1e-6),
                .wave = Seconds(1.1e-6),
                .bandwidth = BytesPerSecond(4.2e12),
                .flops = FlopsPerSecond(5e14),
                .dequant_ops_per_s = 3e12,
                .p = 2.5};
  fitted.ci90.fixed_s = Interval{7.8e-6, 8.5e-6};
  fitted.ci90.p = Interval{2.0, 3.0};
  fitted.loo = {20, 0.03, 0.031, 0.07, 0.12};
  fitted.holdout = FitErrors{4, 0.03, 0.035, 0.05, 0.06};
  fitted.residuals = {-0.1, 0.01, 0.2};
  fitted.range = {{1e6, 4e9}, {1e7, 1e12}, {1, 64}};
  fitted.n_points = 20;
  fitted.source = "a table";
  fitted.notes = {"dequantisation rate: dropped"};
  fitted.points = {
      {Work{
           .bytes = Bytes(134e6), .flops = Flops(1e9), .dequant_ops = 5, .waves = 2, .launches = 2},
       Seconds(3.9e-5)}};
  Calibration calibration;
  calibration.device_name = "NVIDIA H200";
  calibration.device_id = "h200-sxm";
  calibration.n_compute_units = 132;
  calibration.engine = "vllm";
  calibration.engine_version = "0.24.0";
  calibration.source = "somebody's tables";
  calibration.ceilings.read = BytesPerSecond(4.3e12);
  calibration.ceilings.flops["bf16"] = FlopsPerSecond(8e14);
  calibration.ceilings.graph_gap = Seconds(1e-6);
  calibration.classes = {fitted, FittedClass{}};
  calibration.classes[1].id = *kernel_class_named("gemm/bf16");
  return calibration;
}

TEST(CalibrationJson, WhatIsWrittenIsReadBack) {
  const Calibration calibration = whole();
  EXPECT_EQ(read_calibration_text(calibration_document(calibration), "file"), calibration);
}

/// The message for the document with `from` replaced.
std::string refusal(const std::string& from, const std::string& to) {
  std::string text = calibration_document(whole());
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  text.replace(at, from.size(), to);
  try {
    (void)read_calibration_text(text, "file");
  } catch (const InputError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(CalibrationJson, EveryRefusalNamesFileFieldAndWhatIsAllowed) {
  EXPECT_EQ(refusal("calibration/1", "calibration/2"),
            "file: \"schema\": \"kvfathom.calibration/2\"; kvfathom.calibration/1");
  EXPECT_EQ(refusal("\"p\":2.5", "\"p\":0.5"),
            "file: \"classes[0].theta.p\": 0.5; a number of at least 1");
  EXPECT_EQ(refusal("4200000000000.0", "-1"),
            "file: \"classes[0].theta.bandwidth_bytes_per_s\": -1; a number above 0");
  EXPECT_EQ(refusal("decode_attention/fp8/d128/g8/window", "decode"),
            "file: \"classes[0].id\": \"decode\"; op/format, /d<head dim>, /g<group>, /variant");
  EXPECT_EQ(refusal("[2.0,3.0]", "[3.0,2.0]"),
            "file: \"classes[0].ci90.p\": a list; two numbers, the smaller first");
  EXPECT_EQ(refusal("\"n_points\":20", "\"points_n\":20").substr(0, 45),
            "file: \"classes[0].points_n\": unknown field; o");
}

}  // namespace
}  // namespace kvfathom
