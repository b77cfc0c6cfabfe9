// Laws of an engine: what a parameter changes, what falls back, what is refused, the file's form.
#include "model/latency/engine_law.h"

#include <cmath>

#include <gtest/gtest.h>

#include "model/error.h"
#include "model/io/engine_law_json.h"

namespace kvfathom {
namespace {

HardwareSpec device() {
  HardwareSpec spec;
  spec.name = "D";
  spec.vendor = "nvidia";
  spec.architecture = "Ada Lovelace";
  spec.bandwidth = BytesPerSecond(1e12);
  spec.peak_rates["bf16"] = FlopsPerSecond(100e12);
  spec.peak_rates["int8"] = FlopsPerSecond(200e12);
  return spec;
}

EngineSpeed speed() {
  EngineSpeed s{.engine = "llama.cpp", .source = "s", .parameters = {}, .errors = {}};
  s.parameters = {{"read", 0.5, 0.4, 0.6},
                  {"read/ada", 1.2, 1.1, 1.3},
                  {"read/4-bit", 0.9, 0.8, 1.0},
                  {"read/cuda 4-bit", 0.5, 0.5, 0.5},
                  {"read/hopper", 0.1, 0.1, 0.1},
                  {"rate", 0.4, 0.3, 0.5},
                  {"launch", 4e-6, 3e-6, 5e-6},
                  {"step gap", 1e-3, 1e-3, 1e-3}};
  s.errors = {{.phase = Phase::decode, .device_class = "all", .n = 9, .log_error = 0.2},
              {.phase = Phase::decode, .device_class = "ada", .n = 9, .log_error = 0.1},
              {.phase = Phase::decode,
               .device_class = "all",
               .device_known = false,
               .n = 9,
               .log_error = 0.7}};
  return s;
}

constexpr OpClass kGemm{.kind = OpKind::gemm, .format = DType::q4_0};

TEST(EngineLaws, MultipliesTheParametersThatApply) {
  const EngineSpeed s = speed();
  const EngineLaws laws(s, device(), {.backend = "cuda"});
  const PricedClass priced = laws.law(kGemm, false);
  // 0.5 x 1.2 (ada) x 0.9 (4-bit) x 0.5 (both) of 1 TB/s; hopper's is another class's.
  EXPECT_DOUBLE_EQ(priced.law.bandwidth->value(), 0.27e12);
  EXPECT_DOUBLE_EQ(priced.law.flops->value(), 0.4 * 200e12);  // int8, as llama.cpp multiplies
  EXPECT_DOUBLE_EQ(priced.launch.value(), 4e-6);
  EXPECT_EQ(priced.provenance, Provenance::modelled);
  const EngineLaws metal(s, device(), {.backend = "metal"});
  EXPECT_DOUBLE_EQ(metal.law(kGemm, false).law.bandwidth->value(), 0.54e12);
}

// Whoever names no backend gets what runs on the vendor's devices, whose rows were fitted.
TEST(EngineLaws, TakesTheVendorsOwnBackend) {
  const EngineSpeed s = speed();
  for (const auto& [vendor, backend] : {std::pair{"nvidia", "cuda"},
                                        std::pair{"amd", "rocm"},
                                        std::pair{"apple", "metal"},
                                        std::pair{"intel", "vulkan"}}) {
    HardwareSpec spec = device();
    spec.vendor = vendor;
    const EngineLaws laws(s, spec, {});
    EXPECT_TRUE(laws.has_feature(backend)) << vendor;
    EXPECT_EQ(laws.law(kGemm, false).law.bandwidth,
              EngineLaws(s, spec, {.backend = backend}).law(kGemm, false).law.bandwidth);
  }
}

// What was fitted to links between GPUs says nothing of the way to a slower tier.
TEST(EngineLaws, LeavesLinksToSlowerTiersToTheDataSheet) {
  EngineSpeed s = speed();
  s.parameters.push_back({"link", 0.5, 0.4, 0.6});
  HardwareSpec spec = device();
  spec.host_link = {.name = "PCIe 4.0 x16", .bandwidth = BytesPerSecond(31.5e9)};
  const EngineLaws laws(s, spec, {});
  const PricedClass host = laws.law({.kind = OpKind::host_transfer}, false);
  // nvbandwidth reads 26.1 GB/s on an RTX 4090; bytes are counted on both sides.
  EXPECT_NEAR(host.law.bandwidth->value(), 2.0 * 26.1e9, 0.01 * 2.0 * 26.1e9);
  EXPECT_EQ(host.provenance, Provenance::datasheet);
  EXPECT_EQ(laws.law({.kind = OpKind::file_read}, false).provenance, Provenance::assumed);
  const PricedClass peers = laws.law({.kind = OpKind::peer_transfer}, false);
  EXPECT_DOUBLE_EQ(peers.law.bandwidth->value(), 0.5 * 0.8 * 31.5e9);
}

TEST(EngineLaws, BoundsSharesByTheDataSheet) {
  EngineSpeed s = speed();
  s.parameters[0].value = 50.0;
  EXPECT_DOUBLE_EQ(EngineLaws(s, device(), {}).law(kGemm, false).law.bandwidth->value(), 1e12);
  s.parameters[0].value = 1e-9;
  EXPECT_DOUBLE_EQ(EngineLaws(s, device(), {}).law(kGemm, false).law.bandwidth->value(), 0.05e12);
}

TEST(EngineLaws, IsLessSureOfAClassThatItHasNotSeen) {
  const EngineSpeed s = speed();
  EXPECT_DOUBLE_EQ(EngineLaws(s, device(), {}).gaps().log_error, 0.2);
  HardwareSpec other = device();
  other.architecture = "Turing";
  const EngineLaws laws(s, other, {.backend = "vulkan"});
  EXPECT_DOUBLE_EQ(laws.gaps().log_error, 0.7);
  EXPECT_DOUBLE_EQ(laws.law(kGemm, false).law.bandwidth->value(), 0.45e12);  // no class factor
  // Nothing was held out of this phase: as little is known as of any data sheet.
  EXPECT_DOUBLE_EQ(
      EngineLaws(s, device(), {.phase = Phase::prefill, .backend = "cuda"}).gaps().log_error, 0.7);
  EngineSpeed many = speed();
  many.errors[1].n = 100;
  EXPECT_DOUBLE_EQ(EngineLaws(many, device(), {}).gaps().log_error, 0.1);
}

TEST(EngineLaws, RefusesAPromptWithoutAPeakRate) {
  const EngineSpeed s = speed();
  HardwareSpec bare = device();
  bare.peak_rates.clear();
  EXPECT_THROW(EngineLaws(s, bare, {.phase = Phase::prefill, .backend = "cuda"}), Unsupported);
  EXPECT_NO_THROW(EngineLaws(s, bare, {.phase = Phase::decode, .backend = "cuda"}));
}

TEST(EngineLaws, WidenTheStepByTheEnginesError) {
  const EngineSpeed s = speed();
  const EngineLaws laws(s, device(), {});
  StepPricer pricer(laws);
  const std::vector<Op> ops{{.op_class = kGemm, .part = "down", .cost = {.read = Bytes(0.45e9)}}};
  const StepTime step = pricer.price(ops, 0, false);
  EXPECT_NEAR(step.time_s.high / step.time_s.value, std::exp(0.2), 1e-9);
  EXPECT_NEAR(step.time_s.low / step.time_s.value, std::exp(-0.2), 1e-9);
}

TEST(EngineLaws, MoreBandwidthIsNeverSlower) {
  const EngineSpeed s = speed();
  double before = 1e9;
  for (const double bandwidth : {0.2e12, 1e12, 4e12}) {
    HardwareSpec spec = device();
    spec.bandwidth = BytesPerSecond(bandwidth);
    const EngineLaws laws(s, spec, {});
    const double now =
        time(laws.law(kGemm, false).law, {.bytes = Bytes(1e9), .flops = Flops(1e9)}).value();
    EXPECT_LT(now, before);
    before = now;
  }
}

TEST(DeviceClass, ComesFromTheArchitecture) {
  HardwareSpec spec = device();
  EXPECT_EQ(device_class(spec), "ada");
  spec.compute_capability = "12.1";
  EXPECT_EQ(device_class(spec), "gb10");
  HardwareSpec apple;
  apple.vendor = "apple";
  apple.id = "m3-max-40-core";
  EXPECT_EQ(device_class(apple), "m3");
  EXPECT_EQ(device_class(HardwareSpec{}), "");
}

TEST(EngineSpeedJson, ReadsWhatItWrites) {
  const EngineSpeed s = speed();
  const EngineSpeed again = parse_engine_speed(write_engine_speed(s), "f");
  ASSERT_EQ(again.parameters.size(), s.parameters.size());
  EXPECT_EQ(again.parameters[3].name, "read/cuda 4-bit");
  EXPECT_DOUBLE_EQ(again.parameters[0].low, 0.4);
  ASSERT_EQ(again.errors.size(), 3U);
  EXPECT_FALSE(again.errors[2].device_known);
  EXPECT_DOUBLE_EQ(again.errors[2].log_error, 0.7);
}

TEST(EngineSpeedJson, RefusesByField) {
  const auto refusal = [](const std::string& from, const std::string& to) {
    std::string text = write_engine_speed(speed());
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos);
    text.replace(at, from.size(), to);
    try {
      static_cast<void>(parse_engine_speed(text, "f.json"));
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_NE(refusal("engine-speed/1", "engine-speed/2").find("schema"), std::string::npos);
  EXPECT_NE(refusal("\"value\": 0.5", "\"value\": -1").find("value"), std::string::npos);
  EXPECT_NE(refusal("\"low\": 0.4", "\"low\": 0.55").find("low"), std::string::npos);
  EXPECT_NE(refusal("\"n_rows\"", "\"rows\"").find("rows"), std::string::npos);
  EXPECT_NE(refusal("\"decode\"", "\"both\"").find("phase"), std::string::npos);
}

}  // namespace
}  // namespace kvfathom
