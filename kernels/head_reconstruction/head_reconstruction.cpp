// What every version of the head reconstruction agrees on: shapes, groups, scratch memory.
#include "kernels/head_reconstruction/head_reconstruction.h"

#include <algorithm>
#include <string>

#include "kernels/common/error.h"
#include "kernels/head_reconstruction/head_decode_scratch.h"

namespace kvfathom::kernels {

void head_reconstruction_check(const HeadReconstructionParams& p) {
  const auto refuse = [](const std::string& what) { throw UnsupportedShape(what); };
  if (p.cache.format != KvFormat::bf16 && p.cache.format != KvFormat::f16) {
    refuse("heads are rebuilt from bf16 and f16 heads, not from " +
           std::string(name(p.cache.format)));
  }
  if (p.head_dim < 16 || p.head_dim % 16 != 0 || p.head_dim > 256) {
    refuse("head_dim = " + std::to_string(p.head_dim) + " is no multiple of 16 up to 256");
  }
  if (p.n_kv_heads < 1 || p.n_heads < 1 || p.n_heads % p.n_kv_heads != 0) {
    refuse("n_heads = " + std::to_string(p.n_heads) +
           " is no multiple of n_kv_heads = " + std::to_string(p.n_kv_heads));
  }
  if (p.cache.lengths_per_head) {
    refuse("a predicted head needs its references' tokens: lengths by head cannot be");
  }
  if (p.n_first < 0 || p.n_last < 0) {
    refuse("the numbers of exact tokens are not negative");
  }
}

HeadTables group_heads(int n_heads,
                       const std::vector<std::vector<int>>& stored,
                       const std::vector<bool>& predicted) {
  const auto n_kv_heads = static_cast<int>(stored.size());
  const int query_heads = n_kv_heads > 0 ? n_heads / n_kv_heads : 0;
  HeadTables t;
  for (const std::vector<int>& list : stored) {
    t.max_references = std::max(t.max_references, static_cast<int>(list.size()));
  }
  for (int head = 0; head < n_kv_heads; ++head) {
    t.map_of_head.push_back(predicted[head] ? ++t.n_maps : 0);
    t.n_stored.push_back(static_cast<std::int32_t>(stored[head].size()));
    for (int i = 0; i < t.max_references; ++i) {
      t.stored.push_back(i < t.n_stored.back() ? stored[head][i] : 0);
    }
  }
  std::vector<bool> grouped(static_cast<std::size_t>(n_kv_heads), false);
  for (int head = 0; head < n_kv_heads; ++head) {
    if (grouped[head]) {
      continue;
    }
    const auto first_row = static_cast<std::int32_t>(t.rows.size());
    for (int other = head; other < n_kv_heads; ++other) {
      if (stored[other] == stored[head] && predicted[other] == predicted[head]) {
        grouped[other] = true;
        for (int i = 0; i < query_heads; ++i) {
          t.rows.push_back(other * query_heads + i);
        }
      }
    }
    const auto n_rows = static_cast<std::int32_t>(t.rows.size()) - first_row;
    const auto n_slices = static_cast<std::int32_t>(stored[head].size());
    t.bounds.insert(t.bounds.end(),
                    {first_row, n_rows, static_cast<std::int32_t>(t.slices.size()), n_slices});
    t.slices.insert(t.slices.end(), stored[head].begin(), stored[head].end());
    t.rows_per_group = std::max(t.rows_per_group, static_cast<int>(n_rows));
    t.slices_per_group = std::max(t.slices_per_group, static_cast<int>(n_slices));
  }
  return t;
}

int head_decode_splits(const HeadReconstructionParams& params,
                       int longest_tokens,
                       const DeviceInfo& device) {
  const RowGroups& groups = params.v.groups;
  const int columns = groups.slices_per_group * params.head_dim;
  const int column_tiles = (columns + kSumColumns - 1) / kSumColumns;
  return grouped_sum_splits(
      params.cache.n_sequences * groups.n_groups * column_tiles, longest_tokens, device);
}

std::int64_t head_decode_scratch_bytes(const HeadReconstructionParams& params,
                                       int longest_tokens,
                                       int n_splits) {
  return HeadDecodeLayout(params, longest_tokens, n_splits).end;
}

}  // namespace kvfathom::kernels
