// The device's memory ceilings: 16-byte accesses, four in flight per thread, in grid strides.
#include <string>

#include "kernels/bandwidth/bandwidth.h"
#include "kernels/common/error.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {
namespace {

using simt::U32x4;

constexpr int kThreads = kBandwidthThreads;
constexpr int kInFlight = 4;

/// Calls each(i) for this thread's vectors of [0, n), runs of kInFlight at a time through
/// each_run(i, stride), the rest one by one.
template <typename EachRun, typename Each>
SIMT_DEVICE void for_each_vector(std::int64_t n, EachRun each_run, Each each) {
  const std::int64_t stride = static_cast<std::int64_t>(simt::grid_dim().x) * kThreads;
  std::int64_t i = static_cast<std::int64_t>(simt::block_idx().x) * kThreads + simt::thread_idx().x;
  for (; i + (kInFlight - 1) * stride < n; i += kInFlight * stride) {
    each_run(i, stride);
  }
  for (; i < n; i += stride) {
    each(i);
  }
}

SIMT_DEVICE std::uint32_t sum_of(U32x4 v) {
  return v.x + v.y + v.z + v.w;
}

/// Each block adds its vectors and leaves one partial sum.
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads)
    read_kernel(const U32x4* source, std::int64_t n_vectors, std::uint32_t* partial_sums) {
  std::uint32_t sum = 0;
  for_each_vector(
      n_vectors,
      [&](std::int64_t i, std::int64_t stride) {
        U32x4 v[kInFlight];
        SIMT_UNROLL for (int j = 0; j < kInFlight; ++j) {
          v[j] = simt::ld_stream<U32x4>(source + i + j * stride);
        }
        SIMT_UNROLL for (int j = 0; j < kInFlight; ++j) {
          sum += sum_of(v[j]);
        }
      },
      [&](std::int64_t i) { sum += sum_of(simt::ld_stream<U32x4>(source + i)); });

  auto* warp_sums = simt::shared_memory<std::uint32_t>();
  const auto thread = static_cast<int>(simt::thread_idx().x);
  sum = simt::warp_reduce(sum, [](std::uint32_t a, std::uint32_t b) { return a + b; });
  if (simt::lane_id() == 0) {
    warp_sums[thread / simt::kWarpSize] = sum;
  }
  simt::syncblock();
  if (thread == 0) {
    std::uint32_t block_sum = 0;
    for (int warp = 0; warp < kThreads / simt::kWarpSize; ++warp) {
      block_sum += warp_sums[warp];
    }
    simt::st(partial_sums + simt::block_idx().x, block_sum);
  }
}

/// destination[i] = value + i * increment, a word at a time: `write` and `fill`.
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads) write_kernel(U32x4* destination,
                                                           std::int64_t n_vectors,
                                                           std::uint32_t value,
                                                           std::uint32_t increment) {
  const auto put = [&](std::int64_t i) {
    const std::uint32_t first = value + increment * static_cast<std::uint32_t>(4 * i);
    simt::st(destination + i,
             U32x4{first, first + increment, first + 2 * increment, first + 3 * increment});
  };
  for_each_vector(
      n_vectors,
      [&](std::int64_t i, std::int64_t stride) {
        SIMT_UNROLL for (int j = 0; j < kInFlight; ++j) {
          put(i + j * stride);
        }
      },
      put);
}

SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads)
    copy_kernel(const U32x4* source, U32x4* destination, std::int64_t n_vectors) {
  for_each_vector(
      n_vectors,
      [&](std::int64_t i, std::int64_t stride) {
        U32x4 v[kInFlight];
        SIMT_UNROLL for (int j = 0; j < kInFlight; ++j) {
          v[j] = simt::ld_stream<U32x4>(source + i + j * stride);
        }
        SIMT_UNROLL for (int j = 0; j < kInFlight; ++j) {
          simt::st(destination + i + j * stride, v[j]);
        }
      },
      [&](std::int64_t i) { simt::st(destination + i, simt::ld_stream<U32x4>(source + i)); });
}

}  // namespace

void bandwidth_launch(const BandwidthParams& params,
                      int n_blocks,
                      std::uint32_t* partial_sums,
                      Stream stream) {
  if (params.n_words <= 0 || params.n_words % 4 != 0) {
    throw UnsupportedShape("n_words = " + std::to_string(params.n_words) +
                           " is not a positive multiple of 4");
  }
  const auto* source = reinterpret_cast<const U32x4*>(params.source);
  auto* destination = reinterpret_cast<U32x4*>(params.destination);
  const std::int64_t n_vectors = params.n_words / 4;
  const auto blocks = static_cast<unsigned>(n_blocks);
  switch (params.op) {
    case BandwidthOp::read:
      simt::launch(read_kernel,
                   blocks,
                   kThreads,
                   kThreads / simt::kWarpSize * sizeof(std::uint32_t),
                   stream,
                   source,
                   n_vectors,
                   partial_sums);
      break;
    case BandwidthOp::write:
    case BandwidthOp::fill:
      simt::launch(write_kernel,
                   blocks,
                   kThreads,
                   0,
                   stream,
                   destination,
                   n_vectors,
                   params.value,
                   params.op == BandwidthOp::write ? 1U : 0U);
      break;
    case BandwidthOp::copy:
      simt::launch(copy_kernel, blocks, kThreads, 0, stream, source, destination, n_vectors);
      break;
  }
}

}  // namespace kvfathom::kernels
