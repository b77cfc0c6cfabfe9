// Measured speeds: rows read or refused by column, replays, sums, and a few independent numbers.
#include "cli/validate_speed.h"

#include <cmath>
#include <filesystem>
#include <fstream>

#include "cli/data_dir.h"
#include "cli/speed_fit.h"
#include "model/error.h"
#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

namespace fs = std::filesystem;
using cli::SpeedMetric;
using cli::SpeedOutcome;
using cli::SpeedRow;

SpeedRow llama2_row(const std::string& gpu, const std::string& weights, double tokens_per_s) {
  SpeedRow row;
  row.id = "r";
  row.engine = "llama.cpp";
  row.backend = "cuda";
  row.gpu = gpu;
  row.model = "llama-2-7b-hf";
  row.weights = weights;
  row.new_tokens = 128;
  row.chunk_tokens = 512;
  row.flash_attention = false;
  row.metric = SpeedMetric::decode;
  row.value = tokens_per_s;
  return row;
}

SpeedOutcome replayed(const SpeedRow& row) {
  return cli::predict_speeds({row}, cli::read_engine_speeds()).front();
}

// tg128 without FlashAttention of the llama.cpp scoreboard (discussion 15013, 2025-2026).
TEST(SpeedReplay, ScoreboardRatesLieInTheirIntervals) {
  for (const auto& [gpu, tokens_per_s] :
       {std::pair("rtx-4090", 186.21), std::pair("rtx-5090", 290.02), std::pair("a30", 124.81)}) {
    const SpeedOutcome outcome = replayed(llama2_row(gpu, "q4_0", tokens_per_s));
    EXPECT_EQ(outcome.refused, "");
    EXPECT_TRUE(outcome.covered()) << gpu << " " << 128.0 / outcome.predicted_s.value;
  }
}

// XiongjieDai/GPU-Benchmarks-on-LLM-Inference: Llama-3-8B F16, tg 1024, one RTX A6000: 40.25 t/s
// of 16.06 GB of weights at 768 GB/s leave 47.8 t/s at most.
TEST(SpeedReplay, NeverReadsFasterThanTheDataSheet) {
  SpeedRow row = llama2_row("rtx-a6000", "f16", 40.25);
  row.model = "meta-llama-3-8b";
  const SpeedOutcome outcome = replayed(row);
  EXPECT_LT(128.0 / outcome.predicted_s.value, 47.8 * 16.06 / 15.0);  // the embedding is not read
  EXPECT_TRUE(outcome.covered());
}

TEST(SpeedReplay, ALargerBatchIsNeverLessInAll) {
  double before = 0.0;
  for (const std::int64_t batch : {1, 2, 8, 32, 128}) {
    SpeedRow row = llama2_row("h100-sxm", "fp8-dynamic", 1.0);
    row.engine = "vllm";
    row.batch = batch;
    const double rate = static_cast<double>(batch) / replayed(row).predicted_s.value;
    EXPECT_GT(rate, before);
    before = rate;
  }
}

TEST(SpeedReplay, LayersOverGpusDecodeNoFaster) {
  SpeedRow row = llama2_row("rtx-4090", "q4_0", 100.0);
  const double one = replayed(row).predicted_s.value;
  row.n_gpus = 4;
  EXPECT_GE(replayed(row).predicted_s.value, one);
  row.metric = SpeedMetric::prefill;
  row.prompt_tokens = 4096;
  const double prompt_of_four = replayed(row).predicted_s.value;
  row.n_gpus = 1;
  EXPECT_LT(prompt_of_four, replayed(row).predicted_s.value);
}

TEST(SpeedReplay, RefusesWhatIsNotKnown) {
  SpeedRow row = llama2_row("rtx-4090", "q4_0", 100.0);
  row.engine = "mlx";
  EXPECT_NE(replayed(row).refused.find("mlx"), std::string::npos);
  row = llama2_row("m5", "q4_0", 100.0);
  row.metric = SpeedMetric::prefill;
  row.prompt_tokens = 512;
  EXPECT_NE(replayed(row).refused.find("peak rate"), std::string::npos);
}

TEST(SpeedSummary, CountsByHand) {
  std::vector<SpeedOutcome> outcomes(4);
  const double predicted[] = {1.0, 1.1, 0.8, 1.0};
  for (std::size_t i = 0; i < 4; ++i) {
    outcomes[i].row = llama2_row("rtx-4090", "q4_0", 1.0);
    outcomes[i].measured_s = 1.0;
    outcomes[i].predicted_s = {predicted[i], predicted[i] * 0.85, predicted[i] * 1.15};
  }
  outcomes[3].refused = "x";
  const cli::SpeedSummary all = cli::summarise(outcomes).front();
  EXPECT_EQ(all.name, "decode");
  EXPECT_EQ(all.n, 3);
  EXPECT_EQ(all.refused, 1);
  EXPECT_NEAR(all.median_abs_error, 0.1, 1e-12);
  EXPECT_NEAR(all.bias, 0.0, 1e-12);
  EXPECT_NEAR(all.worst_under, 0.2, 1e-12);
  EXPECT_NEAR(all.share_covered, 2.0 / 3.0, 1e-12);
}

// Rows made by laws with a read share of .6, launches of 9 us and no gaps to speak of.
TEST(SpeedFit, FindsPlantedShares) {
  EngineSpeed planted = cli::initial_speed("llama.cpp");
  for (EngineParameter& p : planted.parameters) {
    p.value = p.name == "read" ? 0.6 : p.name == "launch" ? 9e-6 : p.value;
  }
  std::vector<SpeedRow> rows;
  for (const char* gpu : {"rtx-4090", "rtx-3090", "h100-sxm", "rtx-4060", "a100-sxm4-80gb"}) {
    for (const char* model : {"llama-2-7b-hf", "tinyllama-1.1b-chat-v1.0", "meta-llama-3-8b"}) {
      rows.push_back(llama2_row(gpu, "f16", 1.0));
      rows.back().id = std::string(gpu) + model;
      rows.back().model = model;
      rows.back().flash_attention = true;
    }
  }
  const auto outcomes = cli::replay_speeds(rows, {planted});
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].value = 128.0 / outcomes[i].predicted_s.value;
  }
  const cli::SpeedFit fit = cli::fit_speed("llama.cpp", rows);
  double read = 1.0;  // the share of any of these rows: base, backend and format
  for (const EngineParameter& p : fit.speed.parameters) {
    const bool applies = p.name == "read" || p.name == "read/cuda" || p.name == "read/16-bit" ||
                         p.name == "read/cuda 16-bit";
    read *= applies ? p.value : 1.0;
    EXPECT_LE(p.low, p.value) << p.name;
    EXPECT_GE(p.high, p.value) << p.name;
  }
  EXPECT_NEAR(read, 0.6, 0.03);
  EXPECT_EQ(fit.speed.n_rows, 15);
  ASSERT_FALSE(fit.speed.errors.empty());
  EXPECT_LT(fit.speed.errors.front().median_abs_error, 0.05);
}

TEST(SpeedTruth, NamesTheColumnOfABadRow) {
  const fs::path folder = fs::path(::testing::TempDir()) / "speeds";
  fs::create_directories(folder);
  const std::string title =
      "id\tengine\tbackend\tgpu\tn_gpus\ttp\tep\tmodel\tweights\tcache\tstate\tbatch\tprompt\tnew\t"
      "depth\tubatch\tfa\tmetric\tvalue\n";
  const auto refusal = [&](const std::string& row) {
    std::ofstream(folder / "speed.tsv") << title << row;
    try {
      return std::to_string(cli::read_speed_truth(folder.string()).size());
    } catch (const InputError& error) {
      return std::string(error.what());
    }
  };
  const std::string head = "a\tllama.cpp\tcuda\trtx-4090\t1\t1\t1\tm\tq4_0\tf16\t-\t1\t";
  EXPECT_EQ(refusal(head + "512\t0\t0\t512\toff\tprefill\t100\n"), "1");
  EXPECT_NE(refusal(head + "0\t0\t0\t512\toff\tprefill\t100\n").find("prompt"), std::string::npos);
  EXPECT_NE(refusal(head + "512\t0\t0\t512\toff\tspeed\t1\n").find("metric"), std::string::npos);
  EXPECT_NE(refusal(head + "512\t0\t0\t512\toff\tprefill\t0\n").find("value"), std::string::npos);
}

TEST(ValidateSpeed, DocumentsFollowTheirSchemas) {
  const auto json = json_of("validate --speed");
  EXPECT_GT(json.at("rows").size(), 1500U);
  for (const auto& entry : fs::directory_iterator(data_directory() / "engines" / "speed")) {
    EXPECT_EQ(
        schema_faults(nlohmann::json::parse(read_all(entry.path())), schema_named("engine-speed")),
        std::vector<std::string>{})
        << entry.path();
  }
}

}  // namespace
}  // namespace kvfathom::testing
