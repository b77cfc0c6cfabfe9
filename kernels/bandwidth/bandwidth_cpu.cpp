// The CPU's memory ceilings: vectors as wide as the machine's, four in flight, one share of cache
// lines per thread.
#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/bandwidth/bandwidth.h"
#include "kernels/common/error.h"
#include "kernels/common/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/bandwidth/bandwidth_cpu.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

constexpr hn::ScalableTag<std::uint32_t> kTag;

/// Four streams: a core asks ahead in each of them, and so for more than in one.
std::uint32_t read_words(const std::uint32_t* source, std::int64_t n) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(kTag));
  const std::int64_t quarter = n / (4 * lanes) * lanes;
  auto sum0 = hn::Zero(kTag);
  auto sum1 = sum0;
  auto sum2 = sum0;
  auto sum3 = sum0;
  for (std::int64_t i = 0; i < quarter; i += lanes) {
    sum0 = hn::Add(sum0, hn::LoadU(kTag, source + i));
    sum1 = hn::Add(sum1, hn::LoadU(kTag, source + i + quarter));
    sum2 = hn::Add(sum2, hn::LoadU(kTag, source + i + 2 * quarter));
    sum3 = hn::Add(sum3, hn::LoadU(kTag, source + i + 3 * quarter));
  }
  const auto sum = hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3));
  // Lane by lane: GCC's AVX-512 header sums the lanes as signed numbers, and checksums overflow.
  HWY_ALIGN std::uint32_t of_lanes[hn::MaxLanes(kTag)];
  hn::Store(sum, kTag, of_lanes);
  std::uint32_t checksum = std::accumulate(of_lanes, of_lanes + lanes, 0U);
  for (std::int64_t i = 4 * quarter; i < n; ++i) {
    checksum += source[i];
  }
  return checksum;
}

void write_words(std::uint32_t* destination, std::uint32_t value, std::int64_t n) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(kTag));
  const auto step = hn::Set(kTag, static_cast<std::uint32_t>(lanes));
  auto values = hn::Iota(kTag, value);
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(values, kTag, destination + i);
    values = hn::Add(values, step);
  }
  for (; i < n; ++i) {
    destination[i] = value + static_cast<std::uint32_t>(i);
  }
}

void copy_words(std::uint32_t* destination, const std::uint32_t* source, std::int64_t n) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(kTag));
  std::int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    const auto v0 = hn::LoadU(kTag, source + i);
    const auto v1 = hn::LoadU(kTag, source + i + lanes);
    const auto v2 = hn::LoadU(kTag, source + i + 2 * lanes);
    const auto v3 = hn::LoadU(kTag, source + i + 3 * lanes);
    hn::Stream(v0, kTag, destination + i);
    hn::Stream(v1, kTag, destination + i + lanes);
    hn::Stream(v2, kTag, destination + i + 2 * lanes);
    hn::Stream(v3, kTag, destination + i + 3 * lanes);
  }
  for (; i < n; ++i) {
    destination[i] = source[i];
  }
  hwy::FlushStream();
}

void fill_words(std::uint32_t* destination, std::uint32_t value, std::int64_t n) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(kTag));
  const auto values = hn::Set(kTag, value);
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::Stream(values, kTag, destination + i);
  }
  for (; i < n; ++i) {
    destination[i] = value;
  }
  hwy::FlushStream();
}

/// Words [first, last) of the whole.
std::uint32_t run_share(const BandwidthParams& params, std::int64_t first, std::int64_t last) {
  const std::int64_t n = last - first;
  switch (params.op) {
    case BandwidthOp::read:
      return read_words(params.source + first, n);
    case BandwidthOp::write:
      write_words(params.destination + first, params.value + static_cast<std::uint32_t>(first), n);
      return 0;
    case BandwidthOp::copy:
      copy_words(params.destination + first, params.source + first, n);
      return 0;
    case BandwidthOp::fill:
      fill_words(params.destination + first, params.value, n);
      return 0;
  }
  return 0;
}

}  // namespace
}  // namespace kvfathom::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvfathom::kernels {

HWY_EXPORT(run_share);

std::uint32_t bandwidth_cpu(const BandwidthParams& params, int n_threads) {
  if (params.n_words <= 0 || params.n_words % 4 != 0) {
    throw UnsupportedShape("n_words = " + std::to_string(params.n_words) +
                           " is not a positive multiple of 4");
  }
  constexpr std::int64_t kLineWords = 16;  // shares begin on cache lines, as streamed stores must
  const std::int64_t n_lines = (params.n_words + kLineWords - 1) / kLineWords;
  std::vector<std::uint32_t> sums(n_threads_or_all(n_threads));
  parallel_shares(n_threads, n_lines, [&](int thread, std::int64_t first, std::int64_t last) {
    sums[thread] = HWY_DYNAMIC_DISPATCH(run_share)(
        params, first * kLineWords, std::min(last * kLineWords, params.n_words));
  });
  return std::accumulate(sums.begin(), sums.end(), std::uint32_t{0});
}

}  // namespace kvfathom::kernels
#endif
