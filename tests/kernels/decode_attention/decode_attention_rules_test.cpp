// The launch rules, which need no device.
#include <gtest/gtest.h>

#include "kernels/decode_attention/decode_attention.h"

namespace kvfathom::kernels {
namespace {

DeviceInfo device_with(int n_multiprocessors) {
  DeviceInfo info;
  info.compute_capability = 90;
  info.n_multiprocessors = n_multiprocessors;
  return info;
}
int splits_for(int n_sequences, int n_kv_heads, int ratio, int tokens, int window = 0) {
  DecodeAttentionParams params;
  params.n_heads = n_kv_heads * ratio;
  params.head_dim = 128;
  params.cache.format = KvFormat::bf16;
  params.cache.n_sequences = n_sequences;
  params.cache.n_kv_heads = n_kv_heads;
  params.window_tokens = window;
  return decode_attention_splits(params, tokens, device_with(132));
}

TEST(DecodeAttentionSplits, FillWholeWaves) {
  EXPECT_EQ(splits_for(1, 8, 4, 32768), 33);  // 8 * 33 = 2 blocks on each of 132
  EXPECT_EQ(splits_for(2, 4, 4, 32768), 33);
  EXPECT_EQ(splits_for(1, 2, 20, 32768), 66);  // two passes
  EXPECT_EQ(splits_for(264, 8, 4, 32768), 1);  // waves enough as it is
}

TEST(DecodeAttentionSplits, ShortRunsAreNotCut) {
  EXPECT_EQ(splits_for(1, 1, 1, 0), 1);
  EXPECT_EQ(splits_for(1, 8, 4, 255), 1);
  EXPECT_EQ(splits_for(1, 1, 4, 1024), 8);
  EXPECT_EQ(splits_for(1, 8, 4, 32768, 128), 1);  // the window is all there is
}

}  // namespace
}  // namespace kvfathom::kernels
