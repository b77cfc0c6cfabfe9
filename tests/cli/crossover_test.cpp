// kvfathom crossover: what its document says, and that it hangs together.
#include <algorithm>
#include <cmath>

#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

Json crossover(const std::string& words) {
  return json_of("crossover " + words);
}

double time_of(const Json& one, const std::string& arm) {
  for (const Json& row : one.at("arms")) {
    if (row.at("arm") == arm) {
      return row.at("time_s").at("value");
    }
  }
  throw std::runtime_error("no arm " + arm);
}

// At the crossover bandwidth both arms take as long.
TEST(CrossoverCommand, ArmsAreEvenAtTheCrossoverBandwidth) {
  const std::string words = "llama-3.1-8b --gpu h100-sxm --engine ideal --context 8192 --tier ";
  const Json found = crossover(words + "network --bandwidth 10GB/s").at("cases").at(0);
  const double rate = found.at("crossover_bandwidth_bytes_per_s");
  const Json even =
      crossover(words + "network --bandwidth " + std::to_string(std::llround(rate)) + "B/s")
          .at("cases")
          .at(0);
  const double fetch = even.at("fetch_s").at("value");
  // What lands is written to memory as it comes, one layer of which is not hidden.
  EXPECT_NEAR(fetch, even.at("recompute_s").at("value"), 0.01 * fetch);
}

// On either side of the crossover length the other arm wins.
TEST(CrossoverCommand, TheWinnerChangesAtTheCrossoverLength) {
  const std::string words =
      "llama-3.1-8b --gpu h100-sxm --engine ideal --tier network --bandwidth 3GB/s --context ";
  const Json found = crossover(words + "1000").at("cases").at(0);
  ASSERT_GE(found.at("reigns").size(), 2U);
  const std::int64_t from = found.at("crossover_tokens");
  for (const std::int64_t tokens : {from - 1, from}) {
    const Json at = crossover(words + std::to_string(tokens)).at("cases").at(0);
    const bool fetch_wins = time_of(at, "native") <= time_of(at, "recompute");
    EXPECT_EQ(fetch_wins, tokens == from) << tokens;
  }
  EXPECT_LE(found.at("crossover_tokens_low"), from);
}

// A mix is never slower than the better of what it mixes.
TEST(CrossoverCommand, MixesAreNoSlowerThanTheirParts) {
  for (const char* model : {"llama-3.1-8b", "llama-2-7b-hf", "gemma-3-4b-it", "glm-4.7-flash"}) {
    const Json document =
        crossover(std::string(model) + " --gpu rtx-4090 --engine ideal --context 4096");
    for (const Json& one : document.at("cases")) {
      const double fetch = time_of(one, "native");
      const double best = std::min(fetch, time_of(one, "recompute"));
      EXPECT_LE(time_of(one, "split-tokens"), best * 1.001) << model;
      for (const Json& row : one.at("arms")) {
        if (row.at("arm") == "split-layers" || row.at("arm") == "partial-recompute") {
          EXPECT_LE(row.at("time_s").at("value"), fetch * 1.001) << model;
        }
      }
    }
  }
}

// The scheme asked for is what is fetched: by the formulas of `list schemes`, for 32 layers of 8
// heads of 128 (Llama-3.1-8B) and 8192 tokens.
TEST(CrossoverCommand, FetchesTheSchemeThatIsAskedFor) {
  const std::string words =
      "llama-3.1-8b --gpu h100-sxm --engine ideal --tier nvme --context 8192 --scheme ";
  struct Moved {
    const char* scheme;
    double bytes;
  };
  for (const Moved& moved :
       {Moved{"kivi:bits=2,group=32,residual=0", 8192.0 * 32.0 * 8.0 * 256.0 * 3.0 / 8.0},
        Moved{"evict-snapkv:budget=1024", 1024.0 * 131072.0},
        Moved{"evict-h2o:budget=1024", 1024.0 * (131072.0 + 32.0 * 8.0 * 4.0)},  // and scores
        Moved{"residual", 8192.0 * 32.0 * 8192.0},
        Moved{"residual:checkpoints=4", 8192.0 * 4.0 * 8192.0},
        Moved{"k-only:projector=learned", 8192.0 * 65536.0}}) {
    const Json one = crossover(words + moved.scheme).at("cases").at(0);
    EXPECT_NEAR(
        one.at("arms").at(0).at("moved_bytes").get<double>(), moved.bytes, 1e-3 * moved.bytes)
        << moved.scheme;
    EXPECT_EQ(one.at("arms").at(0).at("time_s"), one.at("fetch_s")) << moved.scheme;
    const std::string asked(moved.scheme);
    EXPECT_TRUE(one.at("scheme").get<std::string>().starts_with(asked.substr(0, asked.find(':'))))
        << moved.scheme;
  }
}

TEST(CrossoverCommand, RefusesSchemesThatSayWhereAndNotWhat) {
  for (const char* scheme : {"offload", "kivi+offload:tier=nvme"}) {
    const Ran ran = run_cli(std::string("crossover llama-3.1-8b --gpu h100-sxm --engine ideal ") +
                            "--scheme " + scheme);
    EXPECT_EQ(ran.status, 2) << scheme;
    EXPECT_NE(ran.err.find("--tier"), std::string::npos) << ran.err;
  }
}

// What is fetched in another form is worked on until it is K and V again; prompts that are evicted
// from cost their scores besides.
TEST(CrossoverCommand, OtherFormsCostTheirWork) {
  const Json one = crossover(
                       "llama-2-7b-hf --gpu h100-sxm --engine ideal --tier host "
                       "--bandwidth 1000GB/s --call 0 --context 4096")
                       .at("cases")
                       .at(0);
  const auto row = [&](const std::string& name) -> const Json& {
    for (const Json& arm : one.at("arms")) {
      if (arm.at("name") == name) {
        return arm;
      }
    }
    throw std::runtime_error("no arm " + name);
  };
  const auto link_s = [&](const Json& arm) { return arm.at("moved_bytes").get<double>() / 1e12; };
  for (const char* name :
       {"fetch K, rebuild V", "fetch X, project", "fetch X, run the rest", "fetch 2-bit kivi"}) {
    EXPECT_GT(row(name).at("time_s").at("value"), 1.05 * link_s(row(name))) << name;
  }
  EXPECT_TRUE(row("fetch K, rebuild V").at("exact"));
  EXPECT_EQ(row("fetch SnapKV's 2,048").at("moved_bytes"), 2048.0 * 524288.0);
  EXPECT_FALSE(row("fetch SnapKV's 2,048").at("exact"));
  const double prompt = time_of(one, "recompute");
  EXPECT_GT(time_of(one, "recompute-evict-snapkv"), prompt);
  EXPECT_GT(time_of(one, "recompute-evict-grkv"), time_of(one, "recompute-evict-snapkv"));
}

TEST(CrossoverCommand, ListsNoFormThatIsTheFirstAgain) {
  // States are the same in every cache type; a prefix within the budget is not evicted from.
  for (const char* words : {"mamba2-2.7b --gpu h100-sxm --engine ideal --context 1000",
                            "llama-3.1-8b --gpu h100-sxm --engine ideal --context 100"}) {
    const Json document = crossover(words);
    for (const Json& one : document.at("cases")) {
      for (const Json& arm : one.at("arms")) {
        const bool is_lossy = !arm.at("exact").get<bool>();
        EXPECT_FALSE(is_lossy && arm.at("moved_bytes") == one.at("arms").at(0).at("moved_bytes"))
            << arm.at("name");
        EXPECT_NE(arm.at("how"), "X of 0 layers");
        EXPECT_NE(arm.at("how"), "X of 0 tokens");
      }
    }
  }
  const Ran states = run_cli("crossover mamba2-2.7b --gpu h100-sxm --engine ideal --context 1000");
  EXPECT_EQ(states.out.find("K and V"), std::string::npos) << states.out;
}

TEST(CrossoverCommand, SaysWhatDoesNotFit) {
  const Ran ran = run_cli("crossover glm-4.7-flash --gpu rtx-4090", 200);
  EXPECT_NE(ran.out.find("Does not fit: needs "), std::string::npos) << ran.out;
  const Json large = crossover("glm-4.7-flash --gpu rtx-4090");
  EXPECT_FALSE(large.at("fits"));
  EXPECT_GT(large.at("needed_bytes"), 55LL << 30);  // 29.9 B parameters in 16 bits
  EXPECT_LT(large.at("capacity_bytes"), 24LL << 30);
  EXPECT_TRUE(crossover("llama-3.1-8b --gpu h100-sxm").at("fits"));
  // 256 sequences of 32,768 tokens are 1 TiB of K and V.
  EXPECT_FALSE(crossover("llama-3.1-8b --gpu h100-sxm --running 256").at("fits"));
}

// vLLM keeps 128 values of 8 bits and a scale of 32 of each indexer key, and a latent of 576 values
// of 16 bits: 61 layers of 132 + 1152 bytes a token (its ledger has the same).
TEST(CrossoverCommand, MovesIndexerKeysAsTheEngineStoresThem) {
  const Json one = crossover(
                       "deepseek-v3.2 --gpu h200-sxm --tensor-parallel 8 --tier nvme "
                       "--context 4096")
                       .at("cases")
                       .at(0);
  EXPECT_EQ(one.at("arms").at(0).at("moved_bytes"), 4096.0 * 61.0 * (132.0 + 1152.0));
}

// A quarter of a bit pattern that is in 16 bits is no smaller: KIVI pays where it has packed some.
TEST(CrossoverCommand, PackedFormatsPayNowhereBeforeTheyPack) {
  const Json document = crossover("llama-3.1-8b --gpu h100-sxm");
  int n_seen = 0;
  for (const Json& one : document.at("decode")) {
    if (one.at("scheme") == "kivi") {
      ASSERT_FALSE(one.at("pays_at").empty());
      EXPECT_GT(one.at("pays_at").at(0).at("from_tokens"), 127);  // of the 128 that stay exact
      EXPECT_EQ(one.at("pays_from_tokens"), one.at("pays_at").back().at("from_tokens"));
      ++n_seen;
    }
  }
  EXPECT_EQ(n_seen, 3);
}

// K alone is half of what is read and 32 times the arithmetic: on an H20 (148 TFLOP/s for 4 TB/s)
// 64 sequences gain by it while they are short, until the arithmetic is what a step waits for.
TEST(CrossoverCommand, ASchemeMayStopPaying) {
  const Json document = crossover("llama-2-7b-hf --gpu h20 --engine ideal --tier nvme");
  std::int64_t last = 0;
  for (const Json& one : document.at("decode")) {
    if (one.at("scheme") == "k-only" && one.at("batch") == 64) {
      EXPECT_TRUE(one.at("pays_from_tokens").is_null());
      ASSERT_EQ(one.at("pays_at").size(), 1U);
      EXPECT_EQ(one.at("pays_at").at(0).at("from_tokens"), 1);
      last = one.at("pays_at").at(0).at("to_tokens");
    }
  }
  ASSERT_GT(last, 0);
  const auto step_s = [&](const std::string& scheme, std::int64_t context) {
    const Json speeds =
        json_of("speed llama-2-7b-hf --gpu h20 --engine ideal --sequences 64 --scheme " + scheme +
                " --context " + std::to_string(context));
    for (const Json& point : speeds.at("points")) {
      if (point.at("scheme").get<std::string>().starts_with(scheme) &&
          point.at("phase") == "decode" && point.at("context_tokens") == context &&
          point.at("batch") == 64) {
        return point.at("time_s").at("value").get<double>();
      }
    }
    throw std::runtime_error("no such point");
  };
  EXPECT_LT(step_s("k-only", last), step_s("native", last));
  EXPECT_GE(step_s("k-only", last + 1), step_s("native", last + 1));
}

TEST(CrossoverCommand, SharedMemoryHasNoHostTier) {
  const Json document = crossover("llama-3.1-8b --gpu m4-max-40-core --engine ideal");
  for (const Json& one : document.at("cases")) {
    EXPECT_NE(one.at("tier"), "host");
  }
}

TEST(CrossoverCommand, RefusesWhatItCannotAnswer) {
  EXPECT_EQ(run_cli("crossover llama-3.1-8b").status, 2);
  const Ran sized =
      run_cli("crossover llama-3.1-8b --engine ideal --memory 40GiB --memory-bandwidth 500GB/s");
  EXPECT_EQ(sized.status, 2);
  // No device without peak rates has an answer, so none is suggested.
  EXPECT_EQ(run_cli("crossover llama-3.1-8b").err.find("--memory-bandwidth"), std::string::npos);
  EXPECT_EQ(run_cli("crossover llama-3.1-8b --gpu h100-sxm --tier tape").status, 2);
  EXPECT_EQ(run_cli("crossover llama-3.1-8b --gpu h100-sxm --bandwidth 2GB/s").status, 2);
  EXPECT_EQ(run_cli("crossover llama-3.1-8b --gpu h100-sxm --load 1.5").status, 2);
  EXPECT_EQ(run_cli("crossover llama-3.1-8b --weights q8_0 --gpu rtx-4090 --gpu-layers 9").status,
            3);
  EXPECT_EQ(run_cli("crossover llama-3.1-8b --gpu h100-sxm --engine ideal --svg /no/such/place.svg")
                .status,
            4);
}

}  // namespace
}  // namespace kvfathom::testing
