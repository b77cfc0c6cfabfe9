#include "kernels/common/number_formats.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace kvfathom::kernels {
namespace {

TEST(NumberFormats, EveryF16ReturnsToItself) {
  for (unsigned bits = 0; bits <= 0xffff; ++bits) {
    const F16 value{static_cast<std::uint16_t>(bits)};
    if (!std::isnan(to_f32(value))) {
      ASSERT_EQ(to_f16(to_f32(value)).bits, bits);
    } else {
      ASSERT_TRUE(std::isnan(to_f32(to_f16(to_f32(value)))));
    }
  }
}

TEST(NumberFormats, KnownF16) {
  EXPECT_EQ(to_f16(1.0F).bits, 0x3c00);
  EXPECT_EQ(to_f16(65504.0F).bits, 0x7bff);
  EXPECT_EQ(to_f16(65519.996F).bits, 0x7bff);  // below the middle to 2^16
  EXPECT_EQ(to_f16(65520.0F).bits, 0x7c00);
  EXPECT_EQ(to_f16(0x1p-24F).bits, 1);
  EXPECT_EQ(to_f16(0x1p-25F).bits, 0);  // a tie goes to even
  EXPECT_EQ(to_f16(0x1.8p-24F).bits, 2);
  EXPECT_EQ(to_f16(-0.0F).bits, 0x8000);
  EXPECT_EQ(to_f16(1.0F + 0x1p-11F).bits, 0x3c00);
  EXPECT_EQ(to_f16(1.0F + 0x1.8p-10F).bits, 0x3c02);
}

TEST(NumberFormats, Bf16RoundsTiesToEvenAndKeepsNan) {
  EXPECT_EQ(to_bf16(1.0F).bits, 0x3f80);
  EXPECT_EQ(to_bf16(1.0F + 0x1p-8F).bits, 0x3f80);
  EXPECT_EQ(to_bf16(1.0F + 0x1.8p-7F).bits, 0x3f82);
  EXPECT_EQ(to_bf16(std::numeric_limits<float>::infinity()).bits, 0x7f80);
  EXPECT_TRUE(std::isnan(to_f32(to_bf16(f32_of_bits(0x7fffffffU)))));
}

TEST(NumberFormats, EveryE4M3ReturnsToItself) {
  for (unsigned bits = 0; bits <= 0xff; ++bits) {
    const Fp8E4m3 value{static_cast<std::uint8_t>(bits)};
    if ((bits & 0x7fU) != 0x7f) {
      ASSERT_EQ(to_fp8_e4m3(to_f32(value)).bits, bits);
    } else {
      ASSERT_TRUE(std::isnan(to_f32(value)));
    }
  }
}

// The corners of the OCP 8-bit specification, table 2.
TEST(NumberFormats, KnownE4M3) {
  EXPECT_EQ(to_f32(Fp8E4m3{0x7e}), 448.0F);
  EXPECT_EQ(to_f32(Fp8E4m3{0x08}), 0x1p-6F);
  EXPECT_EQ(to_f32(Fp8E4m3{0x07}), 0x1.cp-7F);
  EXPECT_EQ(to_f32(Fp8E4m3{0x01}), 0x1p-9F);
  EXPECT_EQ(to_fp8_e4m3(1.0e9F).bits, 0x7e);
  EXPECT_EQ(to_fp8_e4m3(-500.0F).bits, 0xfe);
  EXPECT_EQ(to_fp8_e4m3(1.0625F).bits, 0x38);  // a tie goes to even
  EXPECT_EQ(to_fp8_e4m3(0x1p-10F).bits, 0);
}

}  // namespace
}  // namespace kvfathom::kernels
