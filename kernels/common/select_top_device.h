// The k largest of n keys by one block: a radix select in shared memory, then a compaction that
// keeps positions in order. For .cu files only.
#pragma once

#include "kernels/common/score_key.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {

inline constexpr int kSelectThreads = 256;
inline constexpr int kSelectWarps = kSelectThreads / simt::kWarpSize;
inline constexpr int kSelectDigits = 256;

/// The block's shared memory.
struct SelectShared {
  int histogram[kSelectDigits];
  int above_of_warp[kSelectWarps];
  int equal_of_warp[kSelectWarps];
};

/// Keys above `key` are among the k largest, and the first `n_equal` of those equal to it.
struct SelectThreshold {
  std::uint32_t key;
  int n_equal;
};

/// Finds the k-th largest key digit by digit, the highest 8 bits first. k <= n.
template <typename KeyOf>
SIMT_DEVICE SelectThreshold
select_threshold(int n, int k, const KeyOf& key_of, SelectShared& shared) {
  const int thread = static_cast<int>(simt::thread_idx().x);
  SelectThreshold found{0, k};
  for (int shift = 24; shift >= 0; shift -= 8) {
    shared.histogram[thread] = 0;
    simt::syncblock();
    const std::uint32_t known_bits = shift == 24 ? 0U : ~0U << (shift + 8);
    for (int i = thread; i < n; i += kSelectThreads) {
      const std::uint32_t key = key_of(i);
      if ((key & known_bits) == found.key) {
        simt::atomic_add_shared(&shared.histogram[key >> shift & 0xffU], 1);
      }
    }
    simt::syncblock();
    int digit = kSelectDigits - 1;
    while (digit > 0 && shared.histogram[digit] < found.n_equal) {
      found.n_equal -= shared.histogram[digit];
      --digit;
    }
    found.key |= static_cast<std::uint32_t>(digit) << shift;
    simt::syncblock();
  }
  return found;
}

/// Calls take(rank, i) for each of the k largest keys, rank counting them by ascending i. Equal
/// keys go to the lower positions.
template <typename KeyOf, typename Take>
SIMT_DEVICE void select_top(
    int n, int k, const KeyOf& key_of, const Take& take, SelectShared& shared) {
  const SelectThreshold threshold = select_threshold(n, k, key_of, shared);
  const int thread = static_cast<int>(simt::thread_idx().x);
  const int warp = thread / simt::kWarpSize;
  const std::uint32_t lower_lanes = (1U << simt::lane_id()) - 1U;
  int n_above = 0;
  int n_equal = 0;
  for (int first = 0; first < n; first += kSelectThreads) {
    const int i = first + thread;
    const std::uint32_t key = i < n ? key_of(i) : 0U;
    const bool is_above = i < n && key > threshold.key;
    const bool is_equal = i < n && key == threshold.key;
    const std::uint32_t above = simt::ballot(is_above);
    const std::uint32_t equal = simt::ballot(is_equal);
    if (simt::lane_id() == 0) {
      shared.above_of_warp[warp] = simt::count_bits(above);
      shared.equal_of_warp[warp] = simt::count_bits(equal);
    }
    simt::syncblock();
    int above_before = n_above + simt::count_bits(above & lower_lanes);
    int equal_before = n_equal + simt::count_bits(equal & lower_lanes);
    for (int w = 0; w < kSelectWarps; ++w) {
      above_before += w < warp ? shared.above_of_warp[w] : 0;
      equal_before += w < warp ? shared.equal_of_warp[w] : 0;
      n_above += shared.above_of_warp[w];
      n_equal += shared.equal_of_warp[w];
    }
    const int rank =
        above_before + (equal_before < threshold.n_equal ? equal_before : threshold.n_equal);
    const bool is_taken = is_above || (is_equal && equal_before < threshold.n_equal);
    if (is_taken && rank >= 0 && rank < k) {  // the ranks of a faulty select stay in their row
      take(rank, i);
    }
    simt::syncblock();
  }
}

}  // namespace kvfathom::kernels
