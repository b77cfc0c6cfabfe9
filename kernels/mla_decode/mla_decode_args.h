// What both MLA decode kernels are given, and how they find their share. Device code.
#pragma once

#include "kernels/common/kv_cache.h"
#include "kernels/common/split_combine.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {

struct MlaArgs {
  const std::uint16_t* q = nullptr;
  KvCacheView cache;
  SplitStates states;
  int n_heads = 0;
  int n_head_groups = 0;  ///< grid x: head group, fastest, then run of tokens; y: sequence
  float scale_log2 = 0.0F;
};

/// One block's heads and run of tokens. Groups of one run are neighbours in the grid, so that the
/// second reading of a row finds it in the L2 cache.
struct MlaShare {
  int sequence, first_head, split, first_token, end_token;
};
SIMT_DEVICE MlaShare mla_share(const MlaArgs& args, int heads_per_block, int tile_tokens) {
  const int block = static_cast<int>(simt::block_idx().x);
  const int sequence = static_cast<int>(simt::block_idx().y);
  const int split = block / args.n_head_groups;
  const int length = simt::ld_index(args.cache.lengths + sequence);
  const int even = (length + args.states.n_splits - 1) / args.states.n_splits;
  const int run = (even + tile_tokens - 1) / tile_tokens * tile_tokens;
  const int first = split * run;
  return MlaShare{.sequence = sequence,
                  .first_head = block % args.n_head_groups * heads_per_block,
                  .split = split,
                  .first_token = first,
                  .end_token = first + run < length ? first + run : length};
}

/// slot_of, with the page table read as an index.
SIMT_DEVICE KvSlot mla_slot(const KvCacheView& cache, int sequence, int token) {
  if (cache.page_table == nullptr) {
    return KvSlot{sequence, token};
  }
  const std::int64_t row = static_cast<std::int64_t>(sequence) * cache.pages_per_sequence;
  const int page = simt::ld_index(cache.page_table + row + (token >> cache.log2_page_tokens));
  return KvSlot{page, token & ((1 << cache.log2_page_tokens) - 1)};
}

/// Where the state of `head` of this share goes.
SIMT_DEVICE std::int64_t mla_state_index(const MlaArgs& args, const MlaShare& share, int head) {
  const std::int64_t row = static_cast<std::int64_t>(share.sequence) * args.n_heads + head;
  return row * args.states.n_splits + share.split;
}

}  // namespace kvfathom::kernels
