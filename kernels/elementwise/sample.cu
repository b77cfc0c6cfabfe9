// Sampling: masses are whole numbers, so that sums do not depend on the order of the threads.
#include <string>

#include "kernels/common/element_device.h"
#include "kernels/common/error.h"
#include "kernels/elementwise/elementwise.h"

namespace kvfathom::kernels {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / simt::kWarpSize;
constexpr int kBins = 256;

/// A probability in units of 2^-32 of the largest; 2^18 of them fit with room to spare.
using Mass = unsigned long long;

struct Shared {
  Mass bins[kBins];
  Mass of_warp[kWarps];
  Mass wanted;
  std::uint32_t threshold;
};

/// Larger floats have larger keys.
SIMT_DEVICE std::uint32_t key_of(float value) {
  const std::uint32_t bits = bits_of_f32(value);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

struct Row {
  const SampleParams& p;
  std::int64_t first;
  float largest;
  float scale;  ///< log2(e) / temperature

  SIMT_DEVICE float logit(int i) const {
    const std::int64_t at = first + i;
    if (p.element == Element::f32) {
      return simt::ld(static_cast<const float*>(p.logits) + at);
    }
    const std::uint16_t bits = simt::ld(static_cast<const std::uint16_t*>(p.logits) + at);
    return p.element == Element::f16 ? to_f32(F16{bits}) : to_f32(Bf16{bits});
  }
  SIMT_DEVICE Mass mass(float logit) const {
    return static_cast<Mass>(simt::exp2_fast((logit - largest) * scale) * 0x1p32F);
  }
};

SIMT_DEVICE int thread() {
  return static_cast<int>(simt::thread_idx().x);
}

template <typename Weight>
SIMT_DEVICE Mass block_sum(Shared* shared, const Row& row, const Weight& weight) {
  Mass sum = 0;
  for (int i = thread(); i < row.p.vocab_size; i += kThreads) {
    sum += weight(row.logit(i));
  }
  sum = simt::warp_reduce(sum, [](Mass a, Mass b) { return a + b; });
  simt::syncblock();  // an earlier sum may still be read
  if (simt::lane_id() == 0) {
    shared->of_warp[thread() / simt::kWarpSize] = sum;
  }
  simt::syncblock();
  Mass total = 0;
  SIMT_UNROLL for (int warp = 0; warp < kWarps; ++warp) {
    total += shared->of_warp[warp];
  }
  return total;
}

/// The largest key such that the weights of all keys from it on reach `wanted`: eight bits at a
/// time, by histogram.
template <typename Weight>
SIMT_DEVICE std::uint32_t threshold_key(Shared* shared,
                                        const Row& row,
                                        Mass wanted,
                                        const Weight& weight) {
  if (thread() == 0) {
    shared->threshold = 0;
    shared->wanted = wanted;
  }
  for (int shift = 24; shift >= 0; shift -= 8) {
    if (thread() < kBins) {
      shared->bins[thread()] = 0;
    }
    simt::syncblock();
    const std::uint64_t known = static_cast<std::uint64_t>(shared->threshold) >> (shift + 8);
    for (int i = thread(); i < row.p.vocab_size; i += kThreads) {
      const float logit = row.logit(i);
      const std::uint32_t key = key_of(logit);
      if (static_cast<std::uint64_t>(key) >> (shift + 8) == known) {
        simt::atomic_add_shared(&shared->bins[key >> shift & (kBins - 1)], weight(logit));
      }
    }
    simt::syncblock();
    if (thread() == 0) {
      Mass rest = shared->wanted;
      int bin = kBins - 1;
      while (bin > 0 && shared->bins[bin] < rest) {
        rest -= shared->bins[bin];
        --bin;
      }
      shared->wanted = rest;
      shared->threshold |= static_cast<std::uint32_t>(bin) << shift;
    }
    simt::syncblock();
  }
  return shared->threshold;
}

/// Index of the largest logit, the first of equals.
SIMT_DEVICE int largest_of(Shared* shared, const Row& row) {
  // The key above the index counted backwards: one number to compare.
  Mass best = 0;
  const auto larger = [](Mass a, Mass b) { return a > b ? a : b; };
  for (int i = thread(); i < row.p.vocab_size; i += kThreads) {
    const Mass ranked = static_cast<Mass>(key_of(row.logit(i))) << 32 | (0xffffffffU - i);
    best = larger(best, ranked);
  }
  best = simt::warp_reduce(best, larger);
  if (simt::lane_id() == 0) {
    shared->of_warp[thread() / simt::kWarpSize] = best;
  }
  simt::syncblock();
  SIMT_UNROLL for (int warp = 0; warp < kWarps; ++warp) {
    best = larger(best, shared->of_warp[warp]);
  }
  return static_cast<int>(0xffffffffU - static_cast<std::uint32_t>(best));
}

/// The token at which the cumulative mass, in the order of indices, exceeds `target`. Warps own
/// consecutive stretches; the one that holds the target walks through its own again.
template <typename Weight>
SIMT_DEVICE void choose(Shared* shared, const Row& row, Mass target, const Weight& weight) {
  const int warp = thread() / simt::kWarpSize;
  const int stretch = (row.p.vocab_size + kThreads - 1) / kThreads * simt::kWarpSize;
  const int first = warp * stretch;
  const auto weight_at = [&](int i) {
    return i < row.p.vocab_size ? weight(row.logit(i)) : Mass{0};
  };
  const auto add = [](Mass a, Mass b) { return a + b; };
  Mass mine = 0;
  for (int i = first; i < first + stretch; i += simt::kWarpSize) {
    mine += weight_at(i + simt::lane_id());
  }
  mine = simt::warp_reduce(mine, add);
  simt::syncblock();  // an earlier sum may still be read
  if (simt::lane_id() == 0) {
    shared->of_warp[warp] = mine;
  }
  simt::syncblock();
  Mass before = 0;
  for (int other = 0; other < warp; ++other) {
    before += shared->of_warp[other];
  }
  if (target < before || target >= before + mine) {
    return;
  }
  for (int i = first; i < first + stretch; i += simt::kWarpSize) {
    const Mass of_lane = weight_at(i + simt::lane_id());
    const Mass of_all = simt::warp_reduce(of_lane, add);
    if (target < before + of_all) {
      Mass up_to = before;
      for (int lane = 0; lane < simt::kWarpSize; ++lane) {
        const Mass next = up_to + simt::shfl(of_lane, lane);
        if (target >= up_to && target < next && simt::lane_id() == 0) {
          simt::st(row.p.tokens + simt::block_idx().x, i + lane);
        }
        up_to = next;
      }
      return;
    }
    before += of_all;
  }
}

/// One row per block.
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads) sample_kernel(const SampleParams p) {
  auto* shared = simt::shared_memory<Shared>();
  Row row{p, static_cast<std::int64_t>(simt::block_idx().x) * p.vocab_size, 0.0F, 0.0F};
  const int largest = largest_of(shared, row);
  if (p.temperature == 0.0F) {
    if (thread() == 0) {
      simt::st(p.tokens + simt::block_idx().x, largest);
    }
    return;
  }
  row.largest = row.logit(largest);
  row.scale = 1.4426950408889634F / p.temperature;
  std::uint32_t least = 0;
  if (p.top_k > 0 && p.top_k < p.vocab_size) {
    least = threshold_key(shared, row, static_cast<Mass>(p.top_k), [](float) { return Mass{1}; });
  }
  const auto kept_mass = [&](float logit) {
    return key_of(logit) >= least ? row.mass(logit) : Mass{0};
  };
  Mass mass = block_sum(shared, row, kept_mass);
  if (p.top_p < 1.0F) {
    const auto wanted = static_cast<Mass>(static_cast<double>(p.top_p) * static_cast<double>(mass));
    // The key alone decides, so `least` may grow only after all have used the old one.
    const std::uint32_t by_mass = threshold_key(shared, row, wanted > 0 ? wanted : 1, kept_mass);
    least = by_mass > least ? by_mass : least;
    mass = block_sum(shared, row, kept_mass);
  }
  const float uniform = simt::ld(p.uniform + simt::block_idx().x);
  const auto target = static_cast<Mass>(static_cast<double>(uniform) * static_cast<double>(mass));
  choose(shared, row, target < mass ? target : mass - 1, kept_mass);
}

}  // namespace

void sample_launch(const SampleParams& params, Stream stream) {
  if (params.vocab_size <= 0 || params.vocab_size > 1 << 24) {
    throw UnsupportedShape("sample: vocab_size = " + std::to_string(params.vocab_size) +
                           " is not in 1 .. 2^24");
  }
  simt::launch(sample_kernel,
               static_cast<unsigned>(params.n_rows),
               kThreads,
               sizeof(Shared),
               stream,
               params);
}

}  // namespace kvfathom::kernels
