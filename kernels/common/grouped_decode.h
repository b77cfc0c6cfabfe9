// Decode attention in explicit passes over the cache, for schemes whose query heads attend through
// other heads than their own: groups of query heads ("rows") that read the same stored heads
// ("slices") are one product each. What host and device share; kernels in grouped_passes.h.
//
//   scores   [rows, tokens] = q' [rows, slices * head_dim] x [slices of the keys]^T
//   weights  softmax of the scores, rounded to the cache's element
//   sums     [rows, slices * head_dim] = weights x [slices of the key or value rows], by column
//            tiles and runs of tokens
// Every pass reads its slices once for each kScoreRows (kSumRows) rows of a group.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/common/device.h"
#include "kernels/common/kv_cache.h"

namespace kvfathom::kernels {

/// Which query heads attend through which stored heads. Arrays live where the callee runs.
struct RowGroups {
  int n_groups = 0;
  int rows_per_group = 0;    ///< of the largest group
  int slices_per_group = 0;  ///< of the group with most
  /// [n_groups, 4] first entry in `rows`, rows, first entry in `slices`, slices. Null: group g has
  /// rows and slices [g * per_group, (g + 1) * per_group).
  const std::int32_t* bounds = nullptr;
  const std::int32_t* rows = nullptr;    ///< query heads
  const std::int32_t* slices = nullptr;  ///< stored heads
};

/// One group as a kernel sees it.
struct RowGroup {
  const std::int32_t* rows;
  const std::int32_t* slices;
  int first_row, first_slice;  ///< where rows and slices are null
  int n_rows, n_slices;
};
KVFATHOM_HD RowGroup group_at(const RowGroups& groups, int g) {
  if (groups.bounds == nullptr) {
    return RowGroup{nullptr,
                    nullptr,
                    g * groups.rows_per_group,
                    g * groups.slices_per_group,
                    groups.rows_per_group,
                    groups.slices_per_group};
  }
  const std::int32_t* bounds = groups.bounds + std::ptrdiff_t{4} * g;
  return RowGroup{groups.rows + bounds[0], groups.slices + bounds[2], 0, 0, bounds[1], bounds[3]};
}
KVFATHOM_HD int row_at(const RowGroup& group, int i) {
  return group.rows == nullptr ? group.first_row + i : group.rows[i];
}
KVFATHOM_HD int slice_at(const RowGroup& group, int i) {
  return group.slices == nullptr ? group.first_slice + i : group.slices[i];
}

inline constexpr int kScoreRows = 16;    // rows of a group that share one reading in the scores
inline constexpr int kScoreTokens = 64;  // tokens of a block there
inline constexpr int kSumColumns = 128;  // columns of a block in the sums
/// Rows of a group that share one reading in the sums.
constexpr int sum_rows(int rows_per_group) {
  return rows_per_group <= 16 ? 16 : 64;
}
/// Tokens are counted in eights: 16 bytes of weights.
constexpr int round_to_eight(int n) {
  return (n + 7) / 8 * 8;
}

/// How many runs the sums cut `n_tokens` into: enough blocks for the device, runs of 256 or more.
inline int grouped_sum_splits(int n_blocks_per_run, int n_tokens, const DeviceInfo& device) {
  constexpr int kTokensWorthARun = 256;
  const int blocks = std::max(1, n_blocks_per_run);
  const int wanted = (2 * device.n_multiprocessors + blocks - 1) / blocks;
  return std::clamp(wanted, 1, std::max(1, n_tokens / kTokensWorthARun));
}

}  // namespace kvfathom::kernels
