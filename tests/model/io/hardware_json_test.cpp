#include "model/io/hardware_json.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "model/error.h"

namespace kvfathom {
namespace {

namespace fs = std::filesystem;

class HardwareFile : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = fs::path(::testing::TempDir()) /
            (std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) +
             "-gpu.json");
  }
  void TearDown() override { fs::remove(path_); }

  [[nodiscard]] HardwareSpec read(const std::string& text) const {
    std::ofstream(path_) << text;
    return read_hardware(path_);
  }
  /// The message of the refusal without the path.
  [[nodiscard]] std::string refusal(const std::string& text) const {
    try {
      (void)read(text);
    } catch (const InputError& error) {
      const std::string message = error.what();
      EXPECT_TRUE(message.starts_with(path_.string() + ": ")) << message;
      return message.substr(path_.string().size() + 2);
    }
    return "accepted";
  }
  /// A right file with `fields` added.
  [[nodiscard]] static std::string with(const std::string& fields) {
    return R"({"schema": "kvfathom.hardware/1", "name": "My GPU", "memory_bytes": 25769803776)" +
           fields + "}";
  }

  fs::path path_;
};

TEST_F(HardwareFile, Smallest) {
  const HardwareSpec spec = read(with(""));
  EXPECT_EQ(spec.name, "My GPU");
  EXPECT_EQ(spec.id, "Smallest-gpu");
  EXPECT_EQ(spec.kind, "gpu");
  EXPECT_EQ(spec.memory_bytes, 25769803776);
  EXPECT_EQ(spec.memory_provenance, Provenance::assumed);  // the file does not say from where
  EXPECT_EQ(spec.bandwidth.value(), 0);
  EXPECT_FALSE(spec.usable_memory_bytes);
}

TEST_F(HardwareFile, EveryField) {
  const HardwareSpec spec = read(with(R"(,
    "id": "EveryField-gpu", "aliases": ["mine"], "vendor": "nvidia", "architecture": "Ada",
    "kind": "apu", "chip": "AD102", "compute_capability": "8.9", "usable_memory_bytes": 1024,
    "memory_type": "GDDR6X", "unified_memory": true, "bandwidth_bytes_per_s": 1.0084e12,
    "peak_flops_per_s": {"bf16": 165.2e12, "int8": 660.6e12}, "l2_bytes": 75497472,
    "last_level_cache_bytes": 5, "n_compute_units": 128, "boost_clock_hz": 2.52e9, "tdp_w": 450,
    "host_link": {"name": "PCIe 4.0 x16", "bandwidth_bytes_per_s": 31.5e9},
    "peer_link": {"name": "NVLink", "bandwidth_bytes_per_s": 450e9},
    "launch_year": 2022, "launch_price_usd": 1599,
    "cloud_prices": [{"usd_per_hour": 0.34, "kind": "spot", "date": "2026-03", "source": "a page"}],
    "notes": "quiet",
    "sources": [
      {"fields": ["memory_bytes", "tdp_w"], "provenance": "measured-similar", "source": "driver"},
      {"fields": ["peak_flops_per_s.int8"], "provenance": "recalled", "source": "nowhere"}])"));
  EXPECT_EQ(spec.aliases, std::vector<std::string>{"mine"});
  EXPECT_EQ(spec.compute_capability, "8.9");
  EXPECT_EQ(spec.usable_memory_bytes, 1024);
  EXPECT_TRUE(spec.unified_memory);
  EXPECT_EQ(spec.bandwidth.value(), 1.0084e12);
  EXPECT_EQ(spec.peak_rates.at("int8").value(), 660.6e12);
  EXPECT_EQ(spec.host_link->name, "PCIe 4.0 x16");
  EXPECT_EQ(spec.peer_link->bandwidth.value(), 450e9);
  EXPECT_EQ(spec.launch_year, 2022);
  EXPECT_EQ(spec.cloud_prices.at(0).usd_per_hour, 0.34);
  EXPECT_EQ(spec.memory_provenance, Provenance::measured_similar);
  EXPECT_EQ(spec.sources.at("tdp_w").source, "driver");
  EXPECT_EQ(spec.sources.at("peak_flops_per_s.int8").provenance, Provenance::assumed);
}

TEST_F(HardwareFile, RefusalsNameFieldValueAndRemedy) {
  EXPECT_EQ(refusal("{"), "no JSON at byte 2");
  EXPECT_EQ(refusal("[]"), "an array is no object");
  EXPECT_EQ(refusal("{}"), "field \"schema\" is missing");
  EXPECT_EQ(refusal(R"({"schema": "kvfathom.hardware/2"})"),
            R"("schema" is "kvfathom.hardware/2"; allowed is "kvfathom.hardware/1")");
  EXPECT_EQ(refusal(R"({"schema": "kvfathom.hardware/1", "name": "x"})"),
            "field \"memory_bytes\" is missing");
  for (const char* wrong : {"0", "-1", "1.5", "\"24GiB\"", "null", "9223372036854775808"}) {
    EXPECT_EQ(refusal(R"({"schema": "kvfathom.hardware/1", "name": "x", "memory_bytes": )" +
                      std::string(wrong) + "}"),
              "\"memory_bytes\" is " + std::string(wrong) +
                  "; allowed is a whole number from 1 to 2^63 - 1");
  }
  EXPECT_EQ(refusal(with(R"(, "tdp_w": -450)")), "\"tdp_w\" is -450; allowed is a number above 0");
  EXPECT_EQ(refusal(with(R"(, "kind": "npu")")),
            "\"kind\" is \"npu\"; allowed is gpu, apu, tpu or cpu");
  EXPECT_EQ(refusal(with(R"(, "id": "other")")),
            "\"id\" is \"other\"; allowed is the file's own name, "
            "\"RefusalsNameFieldValueAndRemedy-gpu\"");
  EXPECT_EQ(refusal(with(R"(, "usable_memory_bytes": 25769803777)")),
            "\"usable_memory_bytes\" is 25769803777; allowed is at most memory_bytes");
  EXPECT_EQ(refusal(with(R"(, "peak_flops_per_s": {"bf16": "fast"})")),
            "peak_flops_per_s: \"bf16\" is \"fast\"; allowed is a number above 0");
  EXPECT_EQ(refusal(with(R"(, "host_link": {"name": "PCIe"})")),
            "host_link: field \"bandwidth_bytes_per_s\" is missing");
  EXPECT_EQ(refusal(with(R"(, "sources": [{"fields": ["l2_bytes"], "provenance": "exact",
                             "source": "x"}])")),
            "sources: \"fields\" is \"l2_bytes\"; allowed is a field of this file");
  EXPECT_TRUE(refusal(with(R"(, "memory_gib": 24)"))
                  .starts_with("field \"memory_gib\" is not known; known are aliases architecture "
                               "bandwidth_bytes_per_s"));
  EXPECT_TRUE(
      refusal(with(R"(, "sources": [{"fields": [], "provenance": "guessed",
                               "source": "x"}])"))
          .starts_with("sources: \"provenance\" is \"guessed\"; allowed is recalled, exact"));
}

TEST_F(HardwareFile, LongAndStrangeValuesAreShownShort) {
  const std::string found = refusal(with(R"(, "kind": ")" + std::string(5000, 'x') + '"'));
  EXPECT_LT(found.size(), 150U);
  EXPECT_EQ(refusal(with(R"(, "kind": "\u0007\n")")),
            "\"kind\" is \"\\u0007\\n\"; allowed is gpu, apu, tpu or cpu");
}

TEST_F(HardwareFile, DeepNestingIsRefused) {
  EXPECT_EQ(refusal(with(", \"notes\": " + std::string(300000, '[') + std::string(300000, ']'))),
            "\"notes\" is an array; allowed is a text that is not empty");
}

const fs::path kData = fs::path(KVFATHOM_SOURCE_DIR) / "data";

std::string refused_name(const std::string& name) {
  try {
    (void)find_hardware(kData, name);
  } catch (const InputError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(HardwareCatalog, NamesAsPeopleAndDriversWriteThem) {
  for (const char* name :
       {"rtx-4090", "RTX 4090", "rtx4090", "4090", "NVIDIA GeForce RTX 4090", "GeForce RTX 4090"}) {
    EXPECT_EQ(find_hardware(kData, name).id, "rtx-4090") << name;
  }
  EXPECT_EQ(find_hardware(kData, "h100").id, "h100-sxm");
  EXPECT_EQ(find_hardware(kData, "NVIDIA H100 80GB HBM3").id, "h100-sxm");
  EXPECT_EQ(find_hardware(kData, "a100-80gb").id, "a100-sxm4-80gb");
  EXPECT_EQ(find_hardware(kData, "NVIDIA A100-SXM4-80GB").id, "a100-sxm4-80gb");
  EXPECT_EQ(find_hardware(kData, "7900 xtx").id, "rx-7900-xtx");
  EXPECT_EQ(find_hardware(kData, "DGX Spark").id, "gb10");
  EXPECT_EQ(find_hardware(kData, "4060 ti 16 GB").id, "rtx-4060-ti-16gb");
  EXPECT_EQ(find_hardware(kData, "Apple M3 Ultra").id, "m3-ultra");
}

TEST(HardwareCatalog, PartOfANameWhereOnlyOneHasIt) {
  EXPECT_EQ(find_hardware(kData, "strix").id, "ryzen-ai-max-plus-395");
  EXPECT_EQ(find_hardware(kData, "threadripper").id, "threadripper-pro-7995wx");
}

TEST(HardwareCatalog, SeveralAreListed) {
  EXPECT_EQ(refused_name("a100"),
            "--gpu: \"a100\" names several devices; say which: a100-pcie-40gb, a100-pcie-80gb, "
            "a100-sxm4-40gb, a100-sxm4-80gb");
  EXPECT_EQ(refused_name("NVIDIA GeForce RTX 4060 Ti"),
            "--gpu: \"NVIDIA GeForce RTX 4060 Ti\" names several devices; say which: "
            "rtx-4060-ti-16gb, rtx-4060-ti-8gb");
}

TEST(HardwareCatalog, UnknownNamesTheNearestThree) {
  EXPECT_EQ(refused_name("rtx-4909"),
            "--gpu: \"rtx-4909\" is no device of the catalog; nearest are rtx-4090, rtx-3090, "
            "rtx-4060");
  EXPECT_NE(refused_name("").find("nearest are"), std::string::npos);
  EXPECT_NE(refused_name("../../etc/passwd").find("is no device"), std::string::npos);
  EXPECT_LT(refused_name(std::string(1 << 20, '4')).size(), 400U);
}

TEST(HardwareCatalog, DriverNamesWithTwoSizesGoByMemory) {
  const std::int64_t mib = 1 << 20;
  EXPECT_EQ(match_hardware(kData, "NVIDIA GeForce RTX 4060 Ti", 16380 * mib)->id,
            "rtx-4060-ti-16gb");
  EXPECT_EQ(match_hardware(kData, "NVIDIA GeForce RTX 4060 Ti", 8188 * mib)->id, "rtx-4060-ti-8gb");
  EXPECT_EQ(match_hardware(kData, "NVIDIA H200", 143771 * mib)->id, "h200-sxm");
  EXPECT_EQ(match_hardware(kData, "AMD Radeon RX 7900 XTX", 24560 * mib)->id, "rx-7900-xtx");
  EXPECT_EQ(match_hardware(kData, "NVIDIA GeForce RTX 3080", 12288 * mib)->id, "rtx-3080-12gb");
  EXPECT_FALSE(match_hardware(kData, "NVIDIA GeForce RTX 4090 Laptop GPU", 16376 * mib));
  EXPECT_FALSE(match_hardware(kData, "", mib));
}

/// Figures that owners know, from `nvidia-smi` (MiB) and data sheets.
TEST(HardwareCatalog, KnownFigures) {
  const HardwareSpec rtx = find_hardware(kData, "rtx-4090");
  EXPECT_EQ(rtx.memory_bytes, 24564LL << 20);
  EXPECT_EQ(rtx.memory_provenance, Provenance::measured_similar);
  EXPECT_NEAR(rtx.bandwidth.value(), 1008e9, 1e9);
  EXPECT_NEAR(rtx.peak_rates.at("bf16").value(), 165.2e12, 0.1e12);
  const HardwareSpec h100 = find_hardware(kData, "h100-sxm");
  EXPECT_EQ(h100.memory_bytes, 81559LL << 20);
  EXPECT_EQ(h100.bandwidth.value(), 3.35e12);
  EXPECT_EQ(h100.peer_link->bandwidth.value(), 450e9);
  const HardwareSpec mac = find_hardware(kData, "m2-ultra");
  EXPECT_EQ(mac.memory_bytes, 192LL << 30);
  EXPECT_EQ(mac.usable_memory_bytes, 144LL << 30);
  EXPECT_TRUE(mac.unified_memory);
}

TEST(HardwareCatalog, EveryValueHasASourceAndEveryNameLeadsHome) {
  const std::vector<HardwareSpec> all = list_hardware(kData);
  EXPECT_GE(all.size(), 167U);
  for (const HardwareSpec& spec : all) {
    EXPECT_TRUE(spec.sources.contains("memory_bytes")) << spec.id;
    EXPECT_TRUE(spec.sources.contains("bandwidth_bytes_per_s")) << spec.id;
    EXPECT_GT(spec.bandwidth.value(), 0) << spec.id;
    for (const auto& [format, rate] : spec.peak_rates) {
      EXPECT_TRUE(spec.sources.contains("peak_flops_per_s") ||
                  spec.sources.contains("peak_flops_per_s." + format))
          << spec.id << " " << format;
      EXPECT_GT(rate.value(), 1e11) << spec.id << " " << format;
    }
    EXPECT_EQ(spec.tdp_w.has_value(), spec.sources.contains("tdp_w")) << spec.id;
    EXPECT_EQ(spec.launch_price_usd.has_value(), spec.sources.contains("launch_price_usd"))
        << spec.id;
    // "recalled" in words is never sold as more.
    for (const auto& [field, source] : spec.sources) {
      if (source.source.find("recalled, not looked up") != std::string::npos) {
        EXPECT_EQ(source.provenance, Provenance::assumed) << spec.id << " " << field;
      }
    }
    EXPECT_EQ(find_hardware(kData, spec.id).id, spec.id);
  }
}

TEST(HardwareCatalog, MissingDataIsAMachineError) {
  EXPECT_THROW((void)list_hardware("/nonexistent"), MachineError);
}

}  // namespace
}  // namespace kvfathom
