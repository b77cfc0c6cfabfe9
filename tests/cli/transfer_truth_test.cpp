// The model of a link against transfers that people logged (data/truth/transfers.tsv).
#include <cmath>

#include <nlohmann/json.hpp>

#include "cli/tsv.h"
#include "model/crossover/link.h"
#include "tests/cli/run_cli.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

struct Logged {
  std::string id, gpu;
  double line_gb_per_s = 0.0;
  Bytes size, piece;
  double time_ms = 0.0;
  double gb_per_s = 0.0;
};

std::vector<Logged> logged(const std::string& kind) {
  std::vector<Logged> rows;
  cli::for_each_line(std::string(KVFATHOM_SOURCE_DIR) + "/data/truth/transfers.tsv",
                     [&](const cli::TableLine& line, std::size_t) {
                       if (line.text("kind") == kind) {
                         rows.push_back({.id = line.text("id"),
                                         .gpu = line.text("gpu"),
                                         .line_gb_per_s = line.size("line_gb_per_s"),
                                         .size = Bytes(line.size("size_bytes")),
                                         .piece = Bytes(line.size("piece_bytes")),
                                         .time_ms = line.size("time_ms"),
                                         .gb_per_s = line.size("gb_per_s")});
                       }
                     });
  return rows;
}

/// What `crossover` says of the way from the host's memory.
Json host_tier(const std::string& gpu, const std::string& words = "") {
  const Ran ran = run_cli("crossover llama-3.1-8b --engine ideal --tier host --json --gpu " + gpu +
                          " " + words);
  EXPECT_EQ(ran.status, 0) << ran.err;
  return Json::parse(ran.out).at("cases").at(0);
}

// The share that is taken of a PCIe link came from three of these rows; its interval is 10 %.
TEST(TransferTruth, CopiesReachWhatIsTakenOfTheirLink) {
  const auto rows = logged("copy");
  ASSERT_EQ(rows.size(), 6U);
  for (const Logged& row : rows) {
    const double predicted = host_tier(row.gpu).at("bandwidth_bytes_per_s");
    EXPECT_LE(std::abs(std::log(predicted / (1e9 * row.gb_per_s))), 0.1) << row.id;
  }
}

// No row was used for the 10 us that a call takes: "up to about 50" of 2 MiB pieces is met within
// 20 %, an estimate of a tenth of that for 32 KiB pieces within a factor of two.
TEST(TransferTruth, SmallPiecesCollapseAsLogged) {
  const auto rows = logged("pieces");
  ASSERT_EQ(rows.size(), 2U);
  const auto predicted = [](const Logged& row) {
    const double bandwidth = host_tier(row.gpu).at("bandwidth_bytes_per_s");
    const Link link{
        .bandwidth = BytesPerSecond(bandwidth), .call = Seconds(10e-6), .piece = row.piece};
    const Bytes size(1e9);
    return (size / transfer_time(link, size)).value();
  };
  EXPECT_NEAR(predicted(rows[0]), 1e9 * rows[0].gb_per_s, 0.2e9 * rows[0].gb_per_s);
  EXPECT_LE(std::abs(std::log2(predicted(rows[1]) / (1e9 * rows[1].gb_per_s))), 1.0);
}

// A transfer over RDMA is one call, then bytes at the share of the line that PCIe copies reach: no
// row gave that rate, the smallest gave the call (the engine's handshake, far above a network's
// delay), and the eight others, up to 256 times larger, follow within 10 %.
TEST(TransferTruth, PrefixesOverRdmaAreOneCallAndTheLinesShare) {
  const auto rows = logged("rdma");
  ASSERT_EQ(rows.size(), 9U);
  constexpr double kShare = 0.83;
  const Json host = Json::parse(
      run_cli("crossover llama-3.1-8b --engine ideal --gpu h100-sxm --tier network --json "
              "--context 131072 --bandwidth " +
              std::to_string(std::llround(1e9 * kShare * rows[0].line_gb_per_s)) + "B/s")
          .out);
  const Json& fetch = host.at("cases").at(0).at("arms").at(0);
  const double per_byte_s = 1.0 / (1e9 * kShare * rows[0].line_gb_per_s);
  const double call_s = fetch.at("time_s").at("value").get<double>() -
                        fetch.at("moved_bytes").get<double>() * per_byte_s;
  for (const Logged& row : rows) {
    const double predicted_ms = 1e3 * (call_s + row.size.value() * per_byte_s);
    EXPECT_NEAR(predicted_ms, row.time_ms, 0.1 * row.time_ms) << row.id;
  }
}

// The time to the first token of a warm request holds the transfer, a queue and one token's step:
// the transfer is most of what is left of it, and less than all.
TEST(TransferTruth, ARestoreTakesLessThanTheRequestThatWaitedForIt) {
  const auto rows = logged("restore");
  ASSERT_EQ(rows.size(), 1U);
  const Json found = host_tier(rows[0].gpu, "--context 10000");
  const double fetch_ms = 1e3 * found.at("fetch_s").at("value").get<double>();
  EXPECT_LT(fetch_ms, rows[0].time_ms);
  EXPECT_GT(fetch_ms, rows[0].time_ms / 3.0);
  // Cold it took 572.5 ms, in the same queue.
  const double recompute_ms = 1e3 * found.at("recompute_s").at("value").get<double>();
  EXPECT_LT(recompute_ms, 572.5);
  EXPECT_LT(fetch_ms, recompute_ms);
}

}  // namespace
}  // namespace kvfathom::testing
