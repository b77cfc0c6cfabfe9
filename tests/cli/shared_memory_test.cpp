// Machines whose GPU may have a part of a memory that it shares with the host.
#include <cstdint>
#include <string>

#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kGiB = std::int64_t{1} << 30;
constexpr std::int64_t kMiB = std::int64_t{1} << 20;

const Json& total_of(const Json& document, const std::string& device) {
  for (const Json& total : document.at("device_totals")) {
    if (total.at("device") == device) {
      return total;
    }
  }
  throw std::runtime_error("no " + device);
}

TEST(SharedMemory, OnlyWhatTheGpuHoldsIsHeldToItsLimit) {
  // 70 GiB of weights and 40 of cache, half of each on the host: 128 GiB hold the sum, and the
  // GPU's 100.6 its own part.
  const Json document = json_of(
      "memory llama-3.1-70b --gpu ryzen-ai-max-plus-395 --weights q8_0 --context 131072 "
      "--gpu-layers 40 --engine llama.cpp");
  EXPECT_EQ(document.at("fits"), true);
  const Json& gpu = total_of(document, "gpu0");
  const Json& host = total_of(document, "host");
  EXPECT_EQ(gpu.at("capacity_bytes"), 108'000'000'000);
  EXPECT_EQ(host.at("capacity_bytes"), 128 * kGiB);
  EXPECT_EQ(host.at("shared_with"), "gpu0");
  const std::int64_t sum =
      gpu.at("bytes").get<std::int64_t>() + host.at("bytes").get<std::int64_t>();
  EXPECT_GT(sum, 108'000'000'000);
}

TEST(SharedMemory, TheSumIsHeldToTheMemoryThereIs) {
  // Twice as long: 40 GiB of cache more, 20 of them on the GPU, which is below its limit yet.
  const Json document = json_of(
      "memory llama-3.1-70b --gpu ryzen-ai-max-plus-395 --weights q8_0 --context 262144 "
      "--gpu-layers 40 --engine llama.cpp",
      1);
  EXPECT_EQ(total_of(document, "gpu0").at("fits"), true);
  EXPECT_EQ(total_of(document, "host").at("fits"), false);
}

TEST(SharedMemory, AllLayersOnTheGpuAreHeldToTheLimit) {
  const std::string words =
      "memory llama-3.1-70b --weights q8_0 --context 131072 --engine llama.cpp";
  EXPECT_EQ(run_cli(words + " --gpu ryzen-ai-max-plus-395").status, 1);
}

TEST(SharedMemory, TheMachinesLineTellsBoth) {
  const Ran ran = run_cli("memory qwen3-8b --engine llama.cpp --gpu m4-max-40-core --context 4096");
  EXPECT_NE(ran.out.find("Apple M4 Max (40-core), 96.00 GiB for the GPU of 128.00 GiB\n"),
            std::string::npos)
      << ran.out;
}

TEST(SharedMemory, LimitsAreWhatMachinesOfTheSizeLog) {
  // recommendedMaxWorkingSetSize: 10922.67 MiB of 16 GB, 17179.89 MB of 24 GB (M2, M3), 21845.34
  // MiB of 32 GB (M1 Pro, M2 Max), 26800.60 MB of 32 GB (M4), 49152 MiB of 64 GB.
  const auto limit = [](const std::string& gpu) {
    const Json document = json_of("fit qwen3-0.6b --engine ideal --gpu " + gpu);
    return document.at("gpu").at("usable_bytes").get<std::int64_t>();
  };
  EXPECT_EQ(limit("m1") / kMiB, 10922);
  EXPECT_EQ(limit("m2") / 10'000, 1'717'986);
  EXPECT_EQ(limit("m3"), limit("m2"));
  EXPECT_EQ(limit("m1-pro") / kMiB, 21845);
  EXPECT_EQ(limit("m2-pro"), limit("m1-pro"));
  EXPECT_EQ(limit("m4") / 10'000, 2'680'060);
  EXPECT_EQ(limit("m1-max"), 49152 * kMiB);
}

}  // namespace
}  // namespace kvfathom::testing
