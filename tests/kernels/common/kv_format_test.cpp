#include "kernels/common/kv_format.h"

#include <cmath>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "model/dtype.h"
#include "tests/kernels/support/random_data.h"

namespace kvfathom::kernels {
namespace {

TEST(KvFormat, RowsHoldTheBytesThatTheModelCounts) {
  for (const auto& [format, dtype] : {std::pair{KvFormat::f16, DType::f16},
                                      std::pair{KvFormat::bf16, DType::bf16},
                                      std::pair{KvFormat::q8_0, DType::q8_0},
                                      std::pair{KvFormat::q4_0, DType::q4_0},
                                      std::pair{KvFormat::fp8_e4m3, DType::f8_e4m3}}) {
    EXPECT_EQ(row_data_bytes(format, 128) + row_scale_bytes(format, 128), row_bytes(dtype, 128));
  }
}

TEST(KvFormat, BlocksMustBeWhole) {
  EXPECT_THROW(static_cast<void>(row_data_bytes(KvFormat::q8_0, 80)), UnsupportedShape);
  EXPECT_EQ(row_data_bytes(KvFormat::bf16, 80), 160);
}

// Half a step of each format's grid, from its definition.
double half_step(KvFormat format,
                 double magnitude,
                 double largest_in_block,
                 double largest_in_row) {
  switch (format) {
    case KvFormat::f16:
      return magnitude * kUnitRoundoffF16;
    case KvFormat::bf16:
      return magnitude * kUnitRoundoffBf16;
    case KvFormat::fp8_e4m3:
      return magnitude * kUnitRoundoffFp8E4m3;
    case KvFormat::q8_0:
      return largest_in_block * (1.0 / 254.0 + kUnitRoundoffF16);
    case KvFormat::q4_0:  // the side away from the extreme ends one step early
      return largest_in_block * (1.0 / 8.0 + kUnitRoundoffF16);
    case KvFormat::int8_token:
      return largest_in_row / 254.0;
  }
  return 0.0;
}

double largest(std::span<const float> values) {
  double out = 0.0;
  for (const float x : values) {
    out = std::max(out, std::fabs(static_cast<double>(x)));
  }
  return out;
}

TEST(KvFormat, DecodedRowsAreWithinHalfAStep) {
  RandomData random(3);
  const std::vector<float> row = random.normals(128);
  const float head_scale = 0x1p-6F;
  for (const KvFormat format : kAllKvFormats) {
    const EncodedRow stored = encode_row(format, row, head_scale);
    const std::vector<double> back =
        decode_row(format, 128, stored.data.data(), stored.scales.data(), head_scale);
    for (std::size_t i = 0; i < row.size(); ++i) {
      const auto block = std::span(row).subspan(i / kQuantBlock * kQuantBlock, kQuantBlock);
      const double bound = half_step(format, std::fabs(row[i]), largest(block), largest(row));
      EXPECT_LE(std::fabs(back[i] - row[i]), bound * 1.0001 + 0x1p-16) << name(format) << " " << i;
    }
  }
}

TEST(KvFormat, KnownBlocks) {
  std::vector<float> row(32, 0.0F);
  row[0] = 127.0F;
  row[1] = -63.5F;  // rounds away from zero, as ggml's roundf
  row[16] = 1.0F;
  const EncodedRow q8 = encode_row(KvFormat::q8_0, row);
  EXPECT_EQ(static_cast<int>(static_cast<std::int8_t>(q8.data[0])), 127);
  EXPECT_EQ(static_cast<int>(static_cast<std::int8_t>(q8.data[1])), -64);
  EXPECT_EQ(static_cast<int>(static_cast<std::int8_t>(q8.data[16])), 1);
  row[0] = -8.0F;
  row[1] = 3.0F;
  row[16] = 7.0F;
  const EncodedRow q4 = encode_row(KvFormat::q4_0, row);
  EXPECT_EQ(static_cast<unsigned>(q4.data[0]), 0xf0U);  // -8 in the low half, 7 in the high
  EXPECT_EQ(static_cast<unsigned>(q4.data[1]), 0x8bU);
}

TEST(KvFormat, AZeroRowStaysZero) {
  const std::vector<float> row(64, 0.0F);
  for (const KvFormat format : kAllKvFormats) {
    const EncodedRow stored = encode_row(format, row);
    for (const double x : decode_row(format, 64, stored.data.data(), stored.scales.data())) {
      EXPECT_EQ(x, 0.0) << name(format);
    }
  }
}

}  // namespace
}  // namespace kvfathom::kernels
