// The reference decoders against blocks worked out by hand, and the vectorised ones against them.
#include "kernels/common/weight_format.h"

#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/common/weight_product.h"
#include "model/dtype.h"

namespace kvfathom::kernels {
namespace {

std::vector<std::byte> bytes_of(std::initializer_list<int> values, std::size_t size) {
  std::vector<std::byte> bytes;
  for (const int value : values) {
    bytes.push_back(static_cast<std::byte>(value));
  }
  bytes.resize(size);
  return bytes;
}

TEST(WeightFormat, Q80BlockByHand) {
  // d = 0.5 (0x3800), elements 1, -1, 127, -128, 0, ...
  const auto block = bytes_of({0x00, 0x38, 1, 0xff, 127, 0x80}, 34);
  const std::vector<double> values = decode_weights(WeightFormat::q8_0, 32, block.data());
  EXPECT_EQ(values[0], 0.5);
  EXPECT_EQ(values[1], -0.5);
  EXPECT_EQ(values[2], 63.5);
  EXPECT_EQ(values[3], -64.0);
  EXPECT_EQ(values[4], 0.0);
}

TEST(WeightFormat, Q40BlockByHand) {
  // d = 2 (0x4000); byte 0 = 0xf1: element 0 is 1 - 8, element 16 is 15 - 8; byte 1 = 0x80.
  const auto block = bytes_of({0x00, 0x40, 0xf1, 0x80}, 18);
  const std::vector<double> values = decode_weights(WeightFormat::q4_0, 32, block.data());
  EXPECT_EQ(values[0], -14.0);
  EXPECT_EQ(values[16], 14.0);
  EXPECT_EQ(values[1], -16.0);
  EXPECT_EQ(values[17], 0.0);
}

TEST(WeightFormat, Q4KBlockByHand) {
  // d = 1 (0x3c00), dmin = 0.5 (0x3800).
  // Sub-block 0: scale byte 0 = 0xc3 -> 3, min byte 4 = 0x41 -> 1; its upper bits (3 and 1) belong
  // to sub-block 4: byte 8 = 0x25 -> scale 5 | 3 << 4 = 53, min 2 | 1 << 4 = 18.
  auto block = bytes_of({0x00, 0x3c, 0x00, 0x38, 0xc3, 0, 0, 0, 0x41, 0, 0, 0, 0x25}, 144);
  block[16] = static_cast<std::byte>(0x7a);       // element 0: nibble 10; element 32: nibble 7
  block[16 + 64] = static_cast<std::byte>(0x94);  // element 128 (sub-block 4): nibble 4
  const std::vector<double> values = decode_weights(WeightFormat::q4_k, 256, block.data());
  EXPECT_EQ(values[0], 3 * 10 - 0.5 * 1);
  EXPECT_EQ(values[1], -0.5);
  EXPECT_EQ(values[32], 0.0);  // sub-block 1 has scale 0 and minimum 0
  EXPECT_EQ(values[128], 53 * 4 - 0.5 * 18);
  EXPECT_EQ(values[160], 0.0);
}

TEST(WeightFormat, BlocksAreThoseOfTheModel) {
  const std::pair<WeightFormat, DType> same[] = {{WeightFormat::f16, DType::f16},
                                                 {WeightFormat::bf16, DType::bf16},
                                                 {WeightFormat::q8_0, DType::q8_0},
                                                 {WeightFormat::q4_0, DType::q4_0},
                                                 {WeightFormat::q4_k, DType::q4_k}};
  for (const auto& [format, dtype] : same) {
    EXPECT_EQ(weight_row_bytes(format, 512), row_bytes(dtype, 512));
  }
}

TEST(WeightFormat, WidenedWeightsAreTheDecodedOnes) {
  for (const WeightFormat format : kAllWeightFormats) {
    const int k = is_quantised(format) ? 768 : 773;
    const std::vector<std::byte> row = random_weights(format, 1, k, 0.02F, 1);
    const std::vector<double> want = decode_weights(format, k, row.data());
    std::vector<float> got(want.size());
    widen_weights(format, row.data(), 0, k, got.data());
    for (std::size_t i = 0; i < want.size(); ++i) {
      // A scale, a product and a difference, each rounded; d s nibble is at most 0.3 here.
      EXPECT_NEAR(got[i], want[i], is_quantised(format) ? 3 * kUnitRoundoffF32 * 0.3 : 0.0)
          << name(format) << " " << i;
    }
  }
}

TEST(WeightFormat, RandomWeightsHaveTheSizeAskedFor) {
  for (const WeightFormat format : kAllWeightFormats) {
    const std::vector<std::byte> rows = random_weights(format, 8, 512, 0.02F, 2);
    double squares = 0.0;
    for (int row = 0; row < 8; ++row) {
      for (const double value :
           decode_weights(format, 512, rows.data() + row * weight_row_bytes(format, 512))) {
        squares += value * value;
      }
    }
    EXPECT_NEAR(std::sqrt(squares / (8 * 512)), 0.02, 0.008) << name(format);
  }
}

TEST(WeightFormat, RefusesBrokenBlocks) {
  EXPECT_THROW(require_whole_blocks({WeightFormat::q4_k, 4, 128, nullptr}, "test"),
               UnsupportedShape);
  EXPECT_NO_THROW(require_whole_blocks({WeightFormat::q4_0, 4, 96, nullptr}, "test"));
}

}  // namespace
}  // namespace kvfathom::kernels
