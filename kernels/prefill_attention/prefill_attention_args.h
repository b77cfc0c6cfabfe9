// What both prefill attention kernels are given, and how they find their share. Device code.
#pragma once

#include "kernels/common/kv_cache.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {

struct PrefillArgs {
  const std::uint16_t* q = nullptr;
  KvCacheView cache;
  const std::int32_t* query_offsets = nullptr;
  std::uint16_t* out = nullptr;
  int n_heads = 0;
  int window_tokens = 0;
  float scale_log2 = 0.0F;
};

/// One block's queries of one head, and the tokens that any of them sees. Grid: x tile of queries,
/// the last first, since under a causal mask it has the most work; y head; z sequence.
struct PrefillShare {
  int sequence, head, kv_head;
  std::int64_t first_row;  ///< of q and out
  int n_queries;           ///< may be zero or less: this sequence is shorter than the longest
  int first_position;      ///< of the first query
  int first_token, end_token;
};
SIMT_DEVICE PrefillShare prefill_share(const PrefillArgs& args, int query_tile) {
  PrefillShare share{};
  const int tile = static_cast<int>(simt::grid_dim().x - 1 - simt::block_idx().x);
  share.head = static_cast<int>(simt::block_idx().y);
  share.kv_head = share.head / (args.n_heads / args.cache.n_kv_heads);
  share.sequence = static_cast<int>(simt::block_idx().z);
  const int first_row = simt::ld_index(args.query_offsets + share.sequence);
  const int n_queries = simt::ld_index(args.query_offsets + share.sequence + 1) - first_row;
  const int length = simt::ld_index(args.cache.lengths + share.sequence);
  const int first_query = tile * query_tile;
  const int left = n_queries - first_query;
  share.first_row = static_cast<std::int64_t>(first_row) + first_query;
  share.n_queries = left < query_tile ? left : query_tile;
  share.first_position = length - n_queries + first_query;
  const int oldest = share.first_position - args.window_tokens + 1;
  share.first_token = args.window_tokens > 0 && oldest > 0 ? oldest : 0;
  share.end_token = share.first_position + share.n_queries;
  return share;
}

/// slot_of, with the page table read as an index.
SIMT_DEVICE KvSlot prefill_slot(const KvCacheView& cache, int sequence, int token) {
  if (cache.page_table == nullptr) {
    return KvSlot{sequence, token};
  }
  const std::int64_t row = static_cast<std::int64_t>(sequence) * cache.pages_per_sequence;
  const int page = simt::ld_index(cache.page_table + row + (token >> cache.log2_page_tokens));
  return KvSlot{page, token & ((1 << cache.log2_page_tokens) - 1)};
}

/// Whether the query at `position` sees `token`.
SIMT_DEVICE bool prefill_sees(const PrefillArgs& args, int position, int token) {
  return token <= position && (args.window_tokens == 0 || token > position - args.window_tokens);
}

/// Products and conversions of the two formats.
SIMT_DEVICE void mma_of(Bf16 /*format*/,
                        float (&d)[4],
                        const std::uint32_t (&a)[4],
                        const std::uint32_t (&b)[2]) {
  simt::mma_bf16(d, a, b);
}
SIMT_DEVICE void mma_of(F16 /*format*/,
                        float (&d)[4],
                        const std::uint32_t (&a)[4],
                        const std::uint32_t (&b)[2]) {
  simt::mma_f16(d, a, b);
}
SIMT_DEVICE std::uint32_t pack_of(Bf16 /*format*/, float low, float high) {
  return simt::pack_bf16(low, high);
}
SIMT_DEVICE std::uint32_t pack_of(F16 /*format*/, float low, float high) {
  return simt::pack_f16(low, high);
}
SIMT_DEVICE float low_of(Bf16 /*format*/, std::uint32_t pair) {
  return simt::bf16_low(pair);
}
SIMT_DEVICE float high_of(Bf16 /*format*/, std::uint32_t pair) {
  return simt::bf16_high(pair);
}
SIMT_DEVICE float low_of(F16 /*format*/, std::uint32_t pair) {
  return simt::f16_low(pair);
}
SIMT_DEVICE float high_of(F16 /*format*/, std::uint32_t pair) {
  return simt::f16_high(pair);
}

}  // namespace kvfathom::kernels
