#include "cli/calibrations.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "calibrate/calibrations_directory.h"
#include "model/error.h"
#include "model/io/calibration_json.h"
#include "tests/cli/run_json.h"

namespace kvfathom::cli {
namespace {

namespace fs = std::filesystem;

/// One bandwidth for every product, so that its time can be told by hand.
Calibration of_device(const char* device, const char* utc, double bytes_per_s) {
  Calibration calibration;
  calibration.device_name = device;
  calibration.engine = "reference";
  calibration.engine_version = "0.1.0";
  calibration.session = Session{.utc = utc,
                                .os_kernel = "Linux 6.1",
                                .compiler = "C++ 12",
                                .build = "abc",
                                .n_threads = 2,
                                .seed = 1,
                                .duration_s = 60.0,
                                .read_bytes_per_s = {1e10, 1.1e10},
                                .flags = {"busy: load 2"}};
  calibration.ceilings.read = BytesPerSecond(1e10);
  FittedClass gemm;
  gemm.id = *kernel_class_named("gemm/bf16");
  gemm.law.bandwidth = BytesPerSecond(bytes_per_s);
  calibration.classes.push_back(gemm);
  return calibration;
}

class Calibrations : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) /
              (std::string("calibrations ") +
               ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  fs::path write(const char* name, const Calibration& calibration) {
    fs::path path = folder_ / name;
    std::ofstream(path) << calibration_document(calibration);
    return path;
  }
  fs::path folder_;
};

TEST_F(Calibrations, AreListedNewestFirstAndBadFilesPassedOver) {
  write("b.json", of_device("A CPU", "2026-01-02T00:00:00Z", 1e10));
  write("a.json", of_device("A CPU", "2026-03-02T00:00:00Z", 1e10));
  std::ofstream(folder_ / "c.json") << "{}";
  std::ofstream(folder_ / "d.json.partial") << "kvfathom.journal/1";
  const auto all = calibrations_in(folder_);
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].path.filename(), "a.json");
  EXPECT_EQ(all[0].calibration, of_device("A CPU", "2026-03-02T00:00:00Z", 1e10));
  EXPECT_TRUE(calibrations_in(folder_ / "none").empty());
}

TEST_F(Calibrations, PriceWhatTheyAreGivenFor) {
  const fs::path slow = write("slow.json", of_device("NVIDIA H100 SXM", "2026", 1e11));
  const auto seconds = [](const std::string& calibration) {
    const auto ran = testing::run_cli(
        "speed llama-3.1-8b --gpu h100-sxm --engine ideal --context "
        "1024 --json --calibration " +
        calibration);
    EXPECT_EQ(ran.status, 0) << ran.err;
    double products_s = 0.0;
    const auto document = nlohmann::json::parse(ran.out);
    for (const auto& point : document.at("points")) {
      if (point.at("phase") == "decode" && point.at("context_tokens") == 1024 &&
          products_s == 0.0) {
        for (const auto& op : point.at("ops")) {
          products_s += op.at("kind") == "gemm" ? op.at("time_s").get<double>() : 0.0;
        }
      }
    }
    return products_s;
  };
  // 8.03 G parameters less the embedding's 0.525 G, 2 bytes each, at 100 GB/s.
  fs::path plain = fs::path(::testing::TempDir()) / "slow-calibration.json";
  fs::copy_file(slow, plain, fs::copy_options::overwrite_existing);
  EXPECT_NEAR(seconds(plain.string()), 7.505e9 * 2 / 1e11, 0.01 * 0.15);
  EXPECT_LT(seconds("none"), 0.02);
}

/// Our kernels are those of `reference`, which `ideal` is too; no other engine runs them.
TEST_F(Calibrations, AreFoundForOurOwnKernels) {
  const char* const known = std::getenv("XDG_DATA_HOME");
  const std::string before = known == nullptr ? "" : known;
  ::setenv("XDG_DATA_HOME", folder_.c_str(), 1);
  fs::create_directories(calibrations_directory());
  std::ofstream(calibrations_directory() / "own.json")
      << calibration_document(of_device("NVIDIA H100 SXM5 80GB", "2026", 1e11));
  const auto laws = [](const std::string& words) {
    const auto document =
        testing::json_of("speed llama-3.1-8b --gpu h100-sxm --context 1024 --engine " + words);
    return document.at("schemes").at(0).at("laws").get<std::string>();
  };
  const std::string own = "measured kernels of reference 0.1.0";
  EXPECT_NE(laws("reference").find(own), std::string::npos) << laws("reference");
  EXPECT_NE(laws("ideal").find(own), std::string::npos);
  EXPECT_EQ(laws("vllm").find(own), std::string::npos);
  // Without one: others' kernels are not ours.
  EXPECT_EQ(laws("reference --calibration none"), "Times: data sheet, at assumed shares.");
  if (known == nullptr) {
    ::unsetenv("XDG_DATA_HOME");
  } else {
    ::setenv("XDG_DATA_HOME", before.c_str(), 1);
  }
}

TEST_F(Calibrations, AreListedByTheProgramToo) {
  const auto ran = testing::run_cli("list calibrations --json");
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(nlohmann::json::parse(ran.out).at("what"), "calibrations");
}

TEST_F(Calibrations, AFileThatIsNoneIsRefused) {
  const auto ran = testing::run_cli(
      "speed llama-3.1-8b --gpu h100-sxm --context 1024 --calibration /no/such.json");
  EXPECT_EQ(ran.status, 2);
  EXPECT_NE(ran.err.find("/no/such.json"), std::string::npos) << ran.err;
}

TEST_F(Calibrations, TheProgramThatMakesThemIsBesideThisOne) {
  EXPECT_THROW((void)calibrate_program(folder_ / "kvfathom"), MachineError);
  std::ofstream(folder_ / "kvfathom-calibrate") << "#!";
  EXPECT_EQ(calibrate_program(folder_ / "kvfathom"), folder_ / "kvfathom-calibrate");
}

}  // namespace
}  // namespace kvfathom::cli
