// kvfathom crossover --measure: how a crossing is found, and the whole command at a small size.
#include "cli/crossover_measure.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "calibrate/local_device.h"
#include "model/io/calibration_json.h"
#include "tests/cli/json_schema.h"
#include "tests/cli/run_cli.h"

namespace kvfathom::testing {
namespace {

using cli::crossing;
using cli::leave_to_nearest;
using cli::MeasuredCrossover;
using Json = nlohmann::json;
namespace fs = std::filesystem;

TEST(Crossing, LiesBetweenLengthsOnAPowerLaw) {
  // ratio = (100 / n)^1.5 is 1 at 100, wherever it is sampled.
  EXPECT_NEAR(
      *crossing({{10, std::pow(10.0, 1.5)}, {1000, std::pow(0.1, 1.5)}}, true, 1), 100, 1e-9);
  EXPECT_NEAR(
      *crossing({{80, std::pow(1.25, 1.5)}, {160, std::pow(0.625, 1.5)}}, true, 1), 100, 1e-9);
}

TEST(Crossing, IsOfTheDirectionAskedForAndTheNearest) {
  const std::vector<cli::LengthRatio> ratios{{1, 0.5}, {4, 2.0}, {16, 0.5}, {64, 2.0}, {256, 0.5}};
  EXPECT_NEAR(*crossing(ratios, true, 10), 8.0, 1e-9);
  EXPECT_NEAR(*crossing(ratios, true, 100), 128.0, 1e-9);
  EXPECT_NEAR(*crossing(ratios, false, 1), 2.0, 1e-9);
  EXPECT_FALSE(crossing({{1, 0.5}, {4, 0.9}}, true, 2));
  EXPECT_FALSE(crossing({{1, 0.5}, {4, 2.0}}, true, 2));
  EXPECT_FALSE(crossing({}, true, 2));
}

class CrossoverMeasure : public ::testing::Test {
 protected:
  /// A model and a calibration of this CPU with round ceilings, 10 GB/s and 100 GFLOP/s.
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) /
              (std::string("crossover-measure-") +
               ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::create_directories(folder_);
    std::ofstream(folder_ / "config.json")
        << R"({"model_type": "llama", "hidden_size": 512, "num_hidden_layers": 2,)"
           R"("num_attention_heads": 8, "num_key_value_heads": 8, "intermediate_size": 1024,)"
           R"("vocab_size": 512, "torch_dtype": "bfloat16", "max_position_embeddings": 4096})";
    Calibration calibration;
    calibration.device_name = local_host().name;
    calibration.engine = "reference";
    calibration.engine_version = "0.1.0";
    calibration.source = "test";
    calibration.session = Session{.utc = "2026-11-29T00:00:00Z",
                                  .os_kernel = "Linux",
                                  .compiler = "C++",
                                  .build = "abc",
                                  .n_threads = 1,
                                  .seed = 1,
                                  .duration_s = 1.0,
                                  .read_bytes_per_s = {1e10},
                                  .flags = {"busy: a test"}};
    calibration.ceilings.read = BytesPerSecond(1e10);
    calibration.ceilings.copy = BytesPerSecond(1e10);
    calibration.ceilings.flops["bf16"] = FlopsPerSecond(1e11);
    std::ofstream(folder_ / "calibration.json") << calibration_document(calibration);
  }
  void TearDown() override { fs::remove_all(folder_); }

  [[nodiscard]] Ran measure(const std::string& words) const {
    return run_cli("crossover " + (folder_ / "config.json").string() + " --measure --calibration " +
                   (folder_ / "calibration.json").string() + " " + words);
  }

  fs::path folder_;
};

// 20 ms until a piece comes: one token is computed sooner, 1024 are not (13 GFLOP).
TEST(Crossing, IsOfTheNearestPredictionAlone) {
  std::vector<MeasuredCrossover> all{
      {.id = "native", .predicted_tokens = 9, .measured_tokens = 3400.0, .low_tokens = 3300.0},
      {.id = "native", .predicted_tokens = 3800, .measured_tokens = 3400.0, .low_tokens = 3300.0},
      {.id = "residual", .predicted_tokens = 9, .measured_tokens = 3400.0}};
  leave_to_nearest(all);
  EXPECT_FALSE(all[0].measured_tokens);
  EXPECT_FALSE(all[0].low_tokens);
  EXPECT_EQ(all[1].measured_tokens, 3400.0);
  EXPECT_EQ(all[1].low_tokens, 3300.0);
  EXPECT_EQ(all[2].measured_tokens, 3400.0);  // fetching X is another matter
}

TEST_F(CrossoverMeasure, ItsArmsWinWhereTheyArePredictedTo) {
#ifndef NDEBUG
  GTEST_SKIP() << "a debug build is no measure of which arm is the quicker";
#endif
  if (!fs::is_regular_file(fs::read_symlink("/proc/self/exe").parent_path() /
                           "kvfathom-calibrate")) {
    GTEST_SKIP() << "built without kernels";
  }
  const Ran ran = measure(
      "--tier network --bandwidth 10GB/s --call 20000 --piece 1GiB --lengths 1024,1 --seconds 0.2 "
      "--json");
  ASSERT_EQ(ran.status, 0) << ran.err;
  const Json document = Json::parse(ran.out);
  const Json schema = Json::parse(
      read_all(fs::path(KVFATHOM_SOURCE_DIR) / "data/schemas/crossover-measured.schema.json"));
  EXPECT_EQ(schema_faults(document, schema), std::vector<std::string>{});
  const Json& points = document.at("points");
  ASSERT_EQ(points.size(), 2U);
  for (const char* times : {"predicted_s", "measured_s"}) {
    const auto fetch_wins = [&](const Json& point) {
      return point.at("fetch").at(times).at("value") < point.at("recompute").at(times).at("value");
    };
    EXPECT_FALSE(fetch_wins(points[0])) << times;
    EXPECT_TRUE(fetch_wins(points[1])) << times;
  }
  const Json& crossover = document.at("crossovers").at(0);
  EXPECT_EQ(crossover.at("winner"), "fetch");
  EXPECT_GT(crossover.at("measured_tokens"), 1.0);
  EXPECT_LT(crossover.at("measured_tokens"), 1024.0);
}

TEST_F(CrossoverMeasure, RefusesWhatItCannotMeasure) {
  const auto refused = [&](const std::string& words, int status, const char* named) {
    const Ran ran = measure(words);
    EXPECT_EQ(ran.status, status) << words;
    EXPECT_NE(ran.err.find(named), std::string::npos) << words << ": " << ran.err;
  };
  refused("--gpu h100-sxm", 2, "this machine's CPU");
  refused("--engine vllm", 2, "no engine");
  refused("--map", 2, "--map");
  refused("--load 0.5", 2, "--load");
  refused("--scheme residual", 2, "--scheme");
  refused("--tier nvme", 2, "--bandwidth");
  refused("--call 5", 2, "--bandwidth");
  refused("--tier tape --bandwidth 1GB/s", 2, "nvme or network");
  refused("--tier host --bandwidth 1GB/s", 2, "nvme or network");
  refused("--cache-type-k q8_0 --cache-type-v q8_0", 3, "16-bit");
  refused("", 2, "host_transfer/bf16");  // plain copies were not calibrated
  refused("--bandwidth 1GB/s --seconds -1", 2, "--seconds");
  refused("--bandwidth 1GB/s --lengths 1,x", 2, "--lengths");
  refused("--bandwidth 1GB/s --lengths 5000", 2, "--lengths");
}

TEST_F(CrossoverMeasure, NeedsACalibration) {
  const Ran ran = run_cli("crossover llama-3.1-8b --measure --calibration none");
  EXPECT_EQ(ran.status, 2);
  EXPECT_NE(ran.err.find("run kvfathom calibrate first"), std::string::npos) << ran.err;
}

TEST_F(CrossoverMeasure, NeedsItsOwnOption) {
  const Ran ran = run_cli("crossover llama-3.1-8b --gpu h100-sxm --lengths 5");
  EXPECT_EQ(ran.status, 2);
  EXPECT_NE(ran.err.find("--measure"), std::string::npos);
}

}  // namespace
}  // namespace kvfathom::testing
