// The memory ceilings: every word exactly, no tolerance.
#include "kernels/bandwidth/bandwidth.h"

#include <cstdint>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/simt/emulator_control.h"
#include "model/ops/bandwidth.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/random_data.h"
#include "tests/kernels/support/schedules.h"
#include "tests/kernels/support/traffic.h"

namespace kvfathom::kernels {
namespace {

constexpr std::uint32_t kPoison = 0xffffffffU;
constexpr std::uint32_t kValue = 0x9e3779b9U;

/// 64-byte aligned words on the host.
class Words {
 public:
  explicit Words(std::int64_t n, std::uint32_t value = kPoison) : lines_((n + 15) / 16), n_(n) {
    std::fill(data(), data() + n, value);
  }
  std::uint32_t* data() { return lines_.front().words; }
  std::vector<std::uint32_t> values() { return {data(), data() + n_}; }

 private:
  struct alignas(64) Line {
    std::uint32_t words[16];
  };
  std::vector<Line> lines_;
  std::int64_t n_;
};

Words random_words(std::int64_t n) {
  Words words(n);
  RandomData random(11);
  for (std::int64_t i = 0; i < n; ++i) {
    words.data()[i] = static_cast<std::uint32_t>(random.engine()());
  }
  return words;
}

/// What one run leaves: the destination and, for `read`, the checksum.
struct Outcome {
  std::vector<std::uint32_t> destination;
  std::uint32_t checksum = 0;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

template <typename Run>
Outcome on_host(BandwidthOp op, std::int64_t n_words, const Run& run) {
  Words source = random_words(n_words);
  Words destination(n_words);
  const std::uint32_t checksum = run(BandwidthParams{.op = op,
                                                     .n_words = n_words,
                                                     .source = source.data(),
                                                     .destination = destination.data(),
                                                     .value = kValue});
  return Outcome{destination.values(), checksum};
}

Outcome wanted(BandwidthOp op, std::int64_t n_words) {
  return on_host(
      op, n_words, [](const BandwidthParams& params) { return bandwidth_reference(params); });
}

Outcome on_device(BandwidthOp op, std::int64_t n_words, int n_blocks = 0) {
  const DeviceArray<std::uint32_t> source(random_words(n_words).values());
  const DeviceArray<std::uint32_t> destination(std::vector<std::uint32_t>(n_words, kPoison));
  const BandwidthParams params{.op = op,
                               .n_words = n_words,
                               .source = source.data(),
                               .destination = destination.data(),
                               .value = kValue};
  n_blocks = n_blocks > 0 ? n_blocks : bandwidth_blocks(params, device());
  const DeviceArray<std::uint32_t> sums(std::vector<std::uint32_t>(n_blocks, kPoison));
  bandwidth_launch(params, n_blocks, sums.data(), nullptr);
  synchronize();
  Outcome outcome{destination.to_host(), 0};
  if (op == BandwidthOp::read) {
    const std::vector<std::uint32_t> partial = sums.to_host();
    outcome.checksum = std::accumulate(partial.begin(), partial.end(), std::uint32_t{0});
  }
  return outcome;
}

TEST(Bandwidth, ReferenceIsTheDefinition) {
  std::vector<std::uint32_t> source = {1, 2, 3, 0xffffffffU};
  std::vector<std::uint32_t> destination(4, kPoison);
  BandwidthParams params{.op = BandwidthOp::read,
                         .n_words = 4,
                         .source = source.data(),
                         .destination = destination.data(),
                         .value = 7};
  EXPECT_EQ(bandwidth_reference(params), 5U);
  params.op = BandwidthOp::write;
  EXPECT_EQ(bandwidth_reference(params), 0U);
  EXPECT_EQ(destination, (std::vector<std::uint32_t>{7, 8, 9, 10}));
  params.op = BandwidthOp::copy;
  bandwidth_reference(params);
  EXPECT_EQ(destination, source);
  params.op = BandwidthOp::fill;
  bandwidth_reference(params);
  EXPECT_EQ(destination, (std::vector<std::uint32_t>{7, 7, 7, 7}));
}

TEST(Bandwidth, CpuEqualsTheReference) {
  for (const BandwidthOp op : kAllBandwidthOps) {
    for (const std::int64_t n_words : {4, 12, 16, 20, 64, 100, 4096, 65548}) {
      for (const int n_threads : {1, 2, 5}) {
        SCOPED_TRACE(std::string(name(op)) + " of " + std::to_string(n_words) + " words, " +
                     std::to_string(n_threads) + " threads");
        const Outcome got = on_host(op, n_words, [&](const BandwidthParams& params) {
          return bandwidth_cpu(params, n_threads);
        });
        EXPECT_EQ(got, wanted(op, n_words));
      }
    }
  }
}

TEST(Bandwidth, DeviceEqualsTheReference) {
  SKIP_WITHOUT_DEVICE();
  for (const BandwidthOp op : kAllBandwidthOps) {
    for (const std::int64_t n_words : {4, 1020, 1024, 1028, 4096, 100004}) {
      SCOPED_TRACE(std::string(name(op)) + " of " + std::to_string(n_words) + " words");
      EXPECT_EQ(on_device(op, n_words), wanted(op, n_words));
    }
    EXPECT_EQ(on_device(op, 20000, 3), wanted(op, 20000)) << "fewer blocks than fit";
  }
}

TEST(Bandwidth, AWordTooFewIsNoticed) {
  const std::int64_t n_words = 4096;
  for (const BandwidthOp op : kAllBandwidthOps) {
    const Outcome got = on_host(op, n_words, [](BandwidthParams params) {
      params.n_words -= 4;
      return bandwidth_cpu(params);
    });
    EXPECT_NE(got, wanted(op, n_words)) << name(op);
  }
}

TEST(BandwidthSmall, EverySchedule) {
  SKIP_WITHOUT_DEVICE();
  under_every_schedule([] {
    for (const BandwidthOp op : kAllBandwidthOps) {
      EXPECT_EQ(on_device(op, 5000), wanted(op, 5000)) << name(op);
    }
  });
}

TEST(BandwidthSmall, EverySyncMatters) {
  SKIP_WITHOUT_DEVICE();
  expect_every_sync_matters(
      [] { return on_device(BandwidthOp::read, 2048) == wanted(BandwidthOp::read, 2048); });
}

TEST(Bandwidth, MovesWhatTheFormulaSays) {
  SKIP_WITHOUT_DEVICE();
  const std::int64_t n_words = 70000;
  const Bytes size(4.0 * static_cast<double>(n_words));
  const int n_blocks = 16;
  for (const BandwidthOp op : kAllBandwidthOps) {
    static_cast<void>(simt::take_traffic());
    static_cast<void>(on_device(op, n_words, n_blocks));
    const OpCost cost = op == BandwidthOp::read   ? read_cost(size, n_blocks)
                        : op == BandwidthOp::copy ? copy_cost(size)
                                                  : write_cost(size);
    EXPECT_TRUE(moved_bytes_of(cost)) << name(op);
  }
}

TEST(Bandwidth, BlocksFillTheDeviceButNotMore) {
  const DeviceInfo device{.name = "", .n_multiprocessors = 10};
  EXPECT_EQ(bandwidth_blocks({.n_words = 4}, device), 1);
  EXPECT_EQ(bandwidth_blocks({.n_words = 4 * 256 * 3}, device), 3);
  EXPECT_EQ(bandwidth_blocks({.n_words = std::int64_t{1} << 40}, device), 40);
}

TEST(Bandwidth, RefusesSizesThatAreNoWholeVectors) {
  EXPECT_THROW(bandwidth_cpu({.n_words = 0}), UnsupportedShape);
  EXPECT_THROW(bandwidth_cpu({.n_words = 6}), UnsupportedShape);
}

}  // namespace
}  // namespace kvfathom::kernels
