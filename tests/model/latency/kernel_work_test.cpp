#include "model/latency/kernel_work.h"

#include <gtest/gtest.h>

namespace kvfathom {
namespace {

/// 2 sequences x 8 heads x 2 tiles of 128 queries are 32 blocks on 10 units: 4 rounds, as long as
/// 40 blocks; 200 queries in 256 rows. 4 d FLOPs for each of 200 x 201 / 2 pairs of a head.
TEST(KernelWork, PrefillCountsWholeRoundsOfWholeTiles) {
  const PrefillAttentionShape shape{
      .n_query_tokens = 200, .n_cached_tokens = 200, .n_heads = 8, .n_kv_heads = 2, .head_dim = 64};
  const Work work = prefill_attention_work(shape, 2, 10);
  const double useful = 2.0 * 8 * 4 * 64 * (200.0 * 201 / 2);
  EXPECT_NEAR(work.flops.value() / useful, 40.0 / 32 * 256.0 / 200, 1e-12);
  EXPECT_EQ(work.waves, 4.0);
  EXPECT_EQ(work.bytes, Bytes(2.0 * (2 * 200 * 8 * 64 * 2 + 200 * 2 * 2 * 64 * 2)));
}

TEST(KernelWork, DecodeWavesAreRoundsOfKvHeads) {
  DecodeAttentionShape shape;
  shape.n_heads = 32;
  shape.n_kv_heads = 8;
  shape.head_dim = 128;
  shape.lengths = {1000};
  shape.n_sequences = 16;
  shape.row_bytes = 256;
  EXPECT_EQ(decode_attention_work(shape, 100).waves, 2.0);
  EXPECT_EQ(decode_attention_work(shape, 128).waves, 1.0);
}

}  // namespace
}  // namespace kvfathom
