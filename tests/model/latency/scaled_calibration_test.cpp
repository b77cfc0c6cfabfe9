// Kernels scaled from one device to another, against those that were measured on the other.
#include "model/latency/scaled_calibration.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/io/calibration_json.h"
#include "model/io/hardware_json.h"

namespace kvfathom {
namespace {

const std::string kData = std::string(KVFATHOM_SOURCE_DIR) + "/data/";

HardwareSpec gpu(const std::string& id) {
  return read_hardware(kData + "hardware/" + id + ".json");
}

Calibration published(const std::string& file) {
  return read_calibration(kData + "calibrations/published/" + file + ".json");
}

/// Work in the middle of what both were measured with.
double middle(const Interval& a, const Interval& b) {
  const double low = std::max({a.low, b.low, 1.0});
  const double high = std::min(a.high, b.high);
  return high > low ? std::sqrt(low * high) : 0.0;
}

/// |log(scaled / measured)| of each class that both devices have.
std::vector<double> errors(const std::string& from, const std::string& to) {
  const Calibration guess = scaled(published(from + "-vllm-0.24.0"), gpu(from), gpu(to));
  const Calibration measured = published(to + "-vllm-0.24.0");
  std::vector<double> all;
  for (const FittedClass& one : guess.classes) {
    const FittedClass* own = find_class(measured, one.id);
    if (own == nullptr) {
      continue;
    }
    Work work;
    work.bytes = Bytes(middle(one.range.bytes, own->range.bytes));
    work.flops = Flops(middle(one.range.flops, own->range.flops));
    work.waves = middle(one.range.waves, own->range.waves);
    all.push_back(std::abs(std::log(time(one.law, work) / time(own->law, work))));
    EXPECT_EQ(one.provenance, Provenance::modelled);
  }
  std::ranges::sort(all);
  return all;
}

TEST(ScaledCalibration, IsNearWhatWasMeasuredOnDevicesOfTheArchitecture) {
  for (const auto& [from, to] : {std::pair{"h100-sxm", "h200-sxm"},
                                 std::pair{"h200-sxm", "h100-sxm"},
                                 std::pair{"b200", "gb200"},
                                 std::pair{"b300", "b200"}}) {
    const std::vector<double> all = errors(from, to);
    ASSERT_GT(all.size(), 20U) << from;
    EXPECT_LT(all[all.size() / 2], 0.1) << from << " to " << to;
    EXPECT_LT(all[all.size() * 9 / 10], 0.4) << from << " to " << to;
  }
}

TEST(ScaledCalibration, FollowsTheDataSheets) {
  HardwareSpec from;
  from.bandwidth = BytesPerSecond(1e12);
  from.peak_rates["bf16"] = FlopsPerSecond(1e14);
  from.peak_rates["fp8"] = FlopsPerSecond(2e14);
  HardwareSpec to = from;
  to.name = "T";
  to.bandwidth = BytesPerSecond(3e12);
  to.peak_rates["bf16"] = FlopsPerSecond(2e14);
  to.peak_rates["fp8"] = FlopsPerSecond(8e14);
  Calibration calibration;
  calibration.device_name = "F";
  for (const char* id : {"gemm/bf16", "gemm/fp8_block", "all_reduce/bf16/g2"}) {
    FittedClass fitted;
    fitted.id = *kernel_class_named(id);
    fitted.law = {
        .fixed = Seconds(5e-6), .bandwidth = BytesPerSecond(8e11), .flops = FlopsPerSecond(6e13)};
    calibration.classes.push_back(fitted);
  }
  const Calibration guess = scaled(calibration, from, to);
  ASSERT_EQ(guess.classes.size(), 2U);  // without links, nothing is known of collectives
  EXPECT_DOUBLE_EQ(guess.classes[0].law.bandwidth->value(), 24e11);
  EXPECT_DOUBLE_EQ(guess.classes[0].law.flops->value(), 12e13);
  EXPECT_DOUBLE_EQ(guess.classes[1].law.flops->value(), 24e13);
  EXPECT_EQ(guess.classes[0].law.fixed, Seconds(5e-6));
  EXPECT_EQ(guess.device_name, "F, scaled to T");
}

}  // namespace
}  // namespace kvfathom
